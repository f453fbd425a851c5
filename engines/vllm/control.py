"""vLLM 0.32, CPU or CUDA build, by its OpenAI server: `vllm/entrypoints/openai` in the installed source.

Traps, seen on the real server, and what is done: `load_inplace` re-reads files and switches running answers (never used);
a name loaded twice answers 400 (the list says whether it is the same path); the first request with log-probs is slow
(the proof of health asks for them); a log-prob it lacks is written as -9999.0 (never taken for one).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from engines.base import Load, Sample
from engines.http import Client, authorization
from engines.openai.proof import Proof
from engines.vllm import body as wire
from ratchet import names
from ratchet.errors import EngineBroken, EngineRefused
from ratchet.types import EngineRecord

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
ASK_SECONDS = 15.0
LOAD_SECONDS = 120.0
GENERATE_SECONDS = 600.0
NEUTRAL: dict[str, Any] = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
"""Said out loud, since an engine may have other defaults from a model's generation_config.json."""
_T = TypeVar("_T")
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


class VllmEngine:
    """See `engines.base.Engine`."""

    def __init__(self, record: EngineRecord) -> None:
        self.record = record
        self._client = Client(record)
        self._proof = Proof(self._client, record.name)

    def extras(self, route: str, body: Mapping[str, Any]) -> dict[str, Any]:
        if route not in (CHAT, TEXT):
            return {}
        asked: dict[str, Any] = {"return_token_ids": True, "logprobs": True if route == CHAT else body.get("logprobs") or 0}
        if body.get("echo"):
            asked = {}  # with ids asked for, vLLM repeats an empty prompt; and the answer is not learned from anyway
        if body.get("stream"):
            asked["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
        return asked

    def headers(self, public_id: str) -> dict[str, str]:
        # vLLM makes its id from this header: `chatcmpl-` or `cmpl-` and the value.
        return {**authorization(self.record.api_key), "x-request-id": names.bare(public_id)}

    async def models(self) -> list[str]:
        cards = await self._cards()
        return [c.id for c in cards if c.parent is None] + [c.id for c in cards if c.parent is not None]

    async def healthy(self) -> bool:
        return await self._proof.give(self.record.served_name)

    async def load_adapter(self, name: str, path: Path) -> None:
        seen = self._seen(path)
        loaded = await self._adapters()
        if loaded.get(name) == seen:
            return
        if name in loaded:
            await self.unload_adapter(name)
        try:
            await self._client.post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": seen}, seconds=LOAD_SECONDS)
        except EngineRefused as error:
            # Somebody else may have loaded the same one in between.
            if error.status != 400 or (await self._adapters()).get(name) != seen:
                raise

    async def unload_adapter(self, name: str) -> None:
        try:
            await self._client.post("/v1/unload_lora_adapter", {"lora_name": name}, seconds=LOAD_SECONDS)
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
        answer = await self._client.post("/v1/completions", body, seconds=GENERATE_SECONDS)
        return self._samples(answer, n)

    async def load(self) -> Load:
        text = await self._client.get("/metrics", seconds=ASK_SECONDS)
        found = {"running": 0.0, "waiting": 0.0}
        for name, value in _GAUGE.findall(text):
            found[name.decode()] += float(value)
        return Load(int(found["running"]), int(found["waiting"]), self.record.slots)

    async def close(self) -> None:
        await self._client.close()

    def _samples(self, answer: bytes, n: int) -> list[Sample]:
        choices = sorted(self._decode(answer, _Texts).choices, key=lambda c: c.index)
        samples = [_sample(c) for c in choices]
        if len(samples) != n or any(len(s.token_ids) != len(s.logprobs) for s in samples):
            raise EngineBroken(f"engine {self.record.name}: ids and log-probs of {n} continuations do not pair up")
        return samples

    async def _adapters(self) -> dict[str, str]:
        return {c.id: c.root or "" for c in await self._cards() if c.parent is not None}

    async def _cards(self) -> list[_Card]:
        return self._decode(await self._client.get("/v1/models", seconds=ASK_SECONDS), _Cards).data

    def _decode(self, answer: bytes, form: type[_T]) -> _T:
        try:
            return msgspec.json.decode(answer, type=form)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise EngineBroken(f"engine {self.record.name} answered in another form: {error}") from None

    def _seen(self, path: Path) -> str:
        """`path` as the engine sees it: POLICY/VERSION-DIGEST below `adapters_at`, where that is given."""
        if self.record.adapters_at is None:
            return str(path)
        return str(Path(self.record.adapters_at, *path.parts[-2:]))


def _sample(choice: _Text) -> Sample:
    found = [] if choice.logprobs is None else [wire.known(v) for v in choice.logprobs.token_logprobs]
    return Sample(choice.token_ids or [], [v for v in found if v is not None], choice.text, choice.finish_reason)
