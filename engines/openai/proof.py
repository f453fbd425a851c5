"""Show that an engine is alive by one answer of the sort it gives.

That it listens shows nothing: some quantised bases start, and die on their first request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from engines.decode import decode
from engines.http import Client
from engines.routes import EMBEDDINGS, SCORE
from ratchet.errors import EngineBroken, EngineRefused, EngineUnavailable

SECONDS = 120.0
"""A first generation on a busy CPU takes up to half a minute."""
ONE_TOKEN: dict[str, Any] = {"max_tokens": 1, "temperature": 0}
POOLING = frozenset({EMBEDDINGS, SCORE})
"""Routes that are answered without generating."""
LACKING = frozenset({400, 404, 405, 501})
"""Statuses for a route that the model does not have, or cannot serve (no chat template)."""


class _Pooled(msgspec.Struct):
    embedding: list[float] = []
    score: float | None = None


class _Pool(msgspec.Struct):
    data: list[_Pooled]


class _Choices(msgspec.Struct):
    choices: list[Any] = []


class Proof:
    """Probes one engine. `probes` are bodies by route, tried in order; the one that succeeded last is tried first."""

    def __init__(self, client: Client, name: str, probes: Mapping[str, Mapping[str, Any]]) -> None:
        self._client = client
        self._name = name
        self._probes = probes
        self._paths = list(probes)

    async def give(self, model: str) -> bool:
        """True if `model` generated; False if it gave an embedding or a score. EngineUnavailable: it answered none of the probes."""
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
        answer = await self._client.post(path, {"model": model, **self._probes[path]}, seconds=SECONDS)
        if not (_pooled(answer) if path in POOLING else decode(answer, _Choices).choices):
            raise EngineBroken("it generated nothing")


def _pooled(answer: bytes) -> bool:
    """Whether there is a number in it (JSON has no NaN)."""
    return any(item.embedding or item.score is not None for item in decode(answer, _Pool).data)
