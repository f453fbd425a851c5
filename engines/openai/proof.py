"""What shows that an engine is alive: one answer of the kind it gives.

That it listens shows nothing: some quantised bases start, and die on their first request.
"""

from __future__ import annotations

from typing import Any

import msgspec

from engines.http import Client
from engines.vllm import body as wire
from ratchet.errors import EngineBroken, EngineRefused, EngineUnavailable

SECONDS = 120.0
"""A first generation on a busy CPU takes up to half a minute."""
ONE_TOKEN: dict[str, Any] = {"max_tokens": 1, "temperature": 0}
# The first request with log-probs is slow, so that those that generate are asked for them.
REQUESTS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hi"}], **ONE_TOKEN, "logprobs": True},
    "/v1/completions": {"prompt": "Hi", **ONE_TOKEN, "logprobs": 0},
    "/v1/embeddings": {"input": "Hi", "encoding_format": "float"},
    "/v1/score": {"text_1": "Hi", "text_2": "Hi"},
}
"""What is asked, in this order: a chat; a text, of a base without a chat template; an embedding or a score, of a pooling engine."""
POOLING = frozenset({"/v1/embeddings", "/v1/score"})
LACKING = frozenset({400, 404, 405, 501})
"""Statuses of vLLM for a route that its model does not have, or cannot take (no chat template)."""


class _Pooled(msgspec.Struct):
    embedding: list[float] = []
    score: float | None = None


class _Pool(msgspec.Struct):
    data: list[_Pooled]


class Proof:
    """Asks one engine; what it could do last is asked first."""

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self._name = name
        self._paths = list(REQUESTS)

    async def give(self, model: str) -> bool:
        """Whether the engine generated, once it has answered as `model` can. EngineUnavailable if it does not, or can do none of them."""
        refused: EngineRefused | None = None
        for path in list(self._paths):
            try:
                await self._ask(path, model)
            except EngineRefused as error:
                if error.status not in LACKING:
                    raise EngineUnavailable(f"engine {self._name} cannot generate: {error}") from None
                refused = refused or error
            except EngineBroken as error:
                raise EngineUnavailable(f"engine {self._name} cannot generate: {error}") from None
            else:
                self._paths.sort(key=lambda other: other != path)
                return path not in POOLING
        raise EngineUnavailable(f"engine {self._name} cannot generate: {refused}")

    async def _ask(self, path: str, model: str) -> None:
        answer = await self._client.post(path, {"model": model, **REQUESTS[path]}, seconds=SECONDS)
        if not (_pooled(answer) if path in POOLING else wire.parse(answer).choices):
            raise EngineBroken("it generated nothing")


def _pooled(answer: bytes) -> bool:
    """Whether there is a number in it. EngineBroken for another form; JSON has no NaN."""
    try:
        found = msgspec.json.decode(answer, type=_Pool).data
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EngineBroken(f"another form: {error}") from None
    return any(item.embedding or item.score is not None for item in found)
