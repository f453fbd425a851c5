"""vLLM 0.32, CPU or CUDA build, by its OpenAI server: `vllm/entrypoints/openai` in the installed source.

Traps of the real server, and what is done about them: `load_inplace` re-reads files and switches running answers (never used);
a name loaded twice answers 400 (the list says whether it is the same path); the first request with log-probs is slow
(the probe of its health asks for them); a log-prob it lacks is written as -9999.0 (never taken for one).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from engines.decode import decode
from engines.http import HttpControl
from engines.openai.proof import ONE_TOKEN, Proof
from engines.routes import CHAT, EMBEDDINGS, SCORE, TEXT
from engines.types import Load, Sample
from engines.vllm import body as wire
from engines.vllm.wire import NEUTRAL
from ratchet.errors import EngineBroken, EngineRefused
from ratchet.types import EngineRecord

PROBES: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "Hi"}], **ONE_TOKEN, "logprobs": True},
    TEXT: {"prompt": "Hi", **ONE_TOKEN, "logprobs": 0},
    EMBEDDINGS: {"input": "Hi", "encoding_format": "float"},
    SCORE: {"text_1": "Hi", "text_2": "Hi"},
}
"""Asked in this order: a chat; a text, of a base without a chat template; an embedding or a score, of a pooling engine."""
LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
ASK_SECONDS = 15.0
LOAD_SECONDS = 120.0
GENERATE_SECONDS = 600.0
_GAUGE = re.compile(rb"^vllm:num_requests_(running|waiting)\{.*\} ([0-9.eE+]+)$", re.MULTILINE)


class _Card(msgspec.Struct):
    id: str
    root: str | None = None
    parent: str | None = None


class _Cards(msgspec.Struct):
    data: list[_Card]


class _TextLogprobs(msgspec.Struct):
    token_logprobs: list[float | None] = []


class _Text(msgspec.Struct):
    index: int
    text: str = ""
    token_ids: list[int] | None = None
    logprobs: _TextLogprobs | None = None
    finish_reason: str | None = None


class _Texts(msgspec.Struct):
    choices: list[_Text]


class VllmControl(HttpControl):
    """See `engines.base.EngineControl`."""

    def __init__(self, record: EngineRecord) -> None:
        super().__init__(record)
        self._proof = Proof(self._client, record.name, PROBES)

    async def models(self) -> list[str]:
        cards = await self._cards()
        return [c.id for c in cards if c.parent is None] + [c.id for c in cards if c.parent is not None]

    async def health(self) -> bool:
        return await self._proof.give(self.record.served_name)

    async def load(self, name: str, path: Path) -> None:
        there = self._engines_path(path)
        loaded = await self._adapters()
        if loaded.get(name) == there:
            return
        if name in loaded:
            await self.unload(name)
        try:
            await self._client.post(LOAD, {"lora_name": name, "lora_path": there}, seconds=LOAD_SECONDS)
        except EngineRefused as error:
            # Somebody else may have loaded the same one in between.
            if error.status != 400 or (await self._adapters()).get(name) != there:
                raise

    async def unload(self, name: str) -> None:
        try:
            await self._client.post(UNLOAD, {"lora_name": name}, seconds=LOAD_SECONDS)
        except EngineRefused as error:
            if error.status != 404:
                raise

    async def generate(
        self,
        model: str,
        prompt_ids: Sequence[int],
        *,
        n: int = 1,
        max_tokens: int,
        temperature: float = 1.0,
        seed: int | None = None,
        priority: int = 0,
    ) -> list[Sample]:
        body: dict[str, Any] = {
            "model": model,
            "prompt": list(prompt_ids),
            "n": n,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "logprobs": 0,
            "return_token_ids": True,
            **NEUTRAL,
        }
        if seed is not None:
            body["seed"] = seed
        if self.record.launched:  # only then is it known to schedule by priority; others refuse the field
            body["priority"] = priority
        answer = await self._client.post(TEXT, body, seconds=GENERATE_SECONDS)
        return self._samples(answer, n)

    async def metrics(self) -> Load:
        text = await self._client.get("/metrics", seconds=ASK_SECONDS)
        found = {"running": 0.0, "waiting": 0.0}
        for name, value in _GAUGE.findall(text):
            found[name.decode()] += float(value)
        return Load(int(found["running"]), int(found["waiting"]), self.record.slots)

    def _samples(self, answer: bytes, n: int) -> list[Sample]:
        choices = sorted(decode(answer, _Texts).choices, key=lambda c: c.index)
        samples = [_sample(c) for c in choices]
        if len(samples) != n or any(len(s.token_ids) != len(s.logprobs) for s in samples):
            raise EngineBroken(f"engine {self.record.name}: ids and log-probs of {n} continuations do not pair up")
        return samples

    async def _adapters(self) -> dict[str, str]:
        return {c.id: c.root or "" for c in await self._cards() if c.parent is not None}

    async def _cards(self) -> list[_Card]:
        return decode(await self._client.get("/v1/models", seconds=ASK_SECONDS), _Cards).data

    def _engines_path(self, path: Path) -> str:
        """`path` as the engine sees it: POLICY/VERSION-DIGEST below `adapters_at`, where that is given."""
        if self.record.adapters_at is None:
            return str(path)
        return str(Path(self.record.adapters_at, *path.parts[-2:]))


def _sample(choice: _Text) -> Sample:
    found = [] if choice.logprobs is None else [wire.known(v) for v in choice.logprobs.token_logprobs]
    return Sample(choice.token_ids or [], [v for v in found if v is not None], choice.text, choice.finish_reason)
