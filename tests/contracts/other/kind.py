"""An engine unlike vLLM: own field names, ids in one last event, adapters only at its start, a prompt's ids by a second call."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, ClassVar

import msgspec

from engines import sse, types
from engines.base import Command, EngineKind, EngineWire, Start
from engines.decode import decode
from engines.http import HttpControl
from engines.openai import answers, errors
from engines.openai.message import Delta, Message
from engines.routes import CHAT, TEXT
from engines.stream import EventCapture
from engines.types import Captured, Load, Meaning, Request, Sample, StreamCapture, Wants
from ratchet.config.launch import Brings, LaunchConfig
from ratchet.errors import EngineBroken, EngineRefused, EngineUnavailable, EngineUnsupported
from ratchet.types import Choice

PATHS = {CHAT: "/chat", TEXT: "/text"}
RENAMED = {"temperature": "heat", "top_p": "share", "top_k": "keep", "max_tokens": "limit", "max_completion_tokens": "limit"}


class OtherLaunch(LaunchConfig):
    """How Ratchet starts the other engine (`kind: other`)."""

    brings: ClassVar[Brings] = "restart"
    implementation: ClassVar[str] = "tests.contracts.other.kind:KIND"


class Trace(msgspec.Struct):  # all choices' ids and log-probs in one list each, one choice after the other
    ids: list[int] = []
    log_probs: list[float] = []
    lengths: list[int] = []
    usage: dict[str, int] = {}
    texts: list[str] = []
    ends: list[str] = []


class OtherControl(HttpControl):
    async def models(self) -> list[str]:
        return list(decode(await self._client.get("/status", seconds=15), dict[str, Any])["models"])

    async def health(self) -> bool:
        try:
            return bool(await self.generate(self.record.served_name, [1], max_tokens=1))
        except (EngineRefused, EngineBroken) as error:
            raise EngineUnavailable(f"it cannot generate: {error}") from None

    async def generate(
        self, model: str, prompt_ids: Sequence[int], *, n: int = 1, max_tokens: int, temperature: float = 1.0,
        seed: int | None = None, priority: int = 0,
    ) -> list[Sample]:  # fmt: skip
        asked = {"who": model, "ids": list(prompt_ids), "draws": n, "limit": max_tokens, "heat": temperature, "seed": seed}
        found = decode(await self._client.post("/draw", asked, seconds=600), Trace)
        ids, values = cut(found.ids, found.lengths, n), cut(found.log_probs, found.lengths, n)
        return [Sample(*sample) for sample in zip(ids, values, found.texts, found.ends, strict=True)]

    async def metrics(self) -> Load:
        found = decode(await self._client.get("/status", seconds=15), dict[str, Any])
        return Load(found["busy"], found["queued"], self.record.slots)

    async def prompt_ids(self, route: str, fields: Mapping[str, Any], model: str) -> list[int]:
        return decode(await self._client.post("/encode", fields, seconds=15), list[int])


class OtherWire(EngineWire):
    exact_routes = frozenset(PATHS)

    def request(self, route: str, fields: Mapping[str, Any], *, model: str, public_id: str, record: bool) -> Request:
        body = {**fields, "model": model}
        if fields.get("return_token_ids"):
            raise EngineUnsupported("the other engine gives no token ids in its chunks")
        if route in PATHS:
            renamed = {RENAMED.get(key, key): value for key, value in body.items()}
            body = {"heat": 1.0, "share": 1.0, "keep": 0, **renamed, "answer_id": public_id, "trace": record and not fields.get("echo")}
        return Request(PATHS.get(route, route), msgspec.json.encode(body), {})

    def capture(self, route: str, wants: Wants, public_id: str, model: str) -> StreamCapture:
        return OtherCapture(model) if route in PATHS else answers.capture(route, wants, public_id, model)

    def whole(self, route: str, body: bytes, wants: Wants, public_id: str, model: str) -> tuple[bytes, Captured]:
        if route not in PATHS:
            return answers.whole(route, body, wants, public_id, model)
        tree = decode(body, dict[str, Any]) | {"model": model}
        trace = msgspec.convert(tree.pop("trace", {}), Trace)
        said = [(part.get("message") or {"role": "assistant", "content": part["text"]}, part["finish_reason"]) for part in tree["choices"]]
        return msgspec.json.encode(tree), recorded(trace, said, trace.usage or tree["usage"])

    def meaning(self, status: int, headers: Mapping[str, str], body: bytes, model: str) -> Meaning:
        if not body.startswith(b'{"oops"'):
            return types.NoRoute() if body == b"nothing here" else errors.meaning(status, headers, body, model)
        tree = decode(body, dict[str, Any])
        if status == 529:
            return types.Overloaded(tree["wait_ms"] / 1000)
        return types.NoAdapter() if status == 404 else types.ClientFault(tree["oops"], tree.get("about"))


class OtherCapture(EventCapture[tuple[bytes, bytes]]):
    split = staticmethod(sse.split_named)

    def __init__(self, model: str) -> None:
        super().__init__()
        self._model, self._trace, self._usage, self._messages = model, Trace(), dict[str, Any](), dict[int, Message]()

    def event(self, event: tuple[bytes, bytes]) -> bytes | None:
        name, data = event
        if name == b"trace":  # the engine's own: never the client's
            self._trace = decode(data, Trace)
            return None
        if data == sse.DONE:
            self.done = True
            return data
        tree = decode(data, dict[str, Any]) | {"model": self._model}
        self._usage = tree.get("usage") or self._usage
        for part in tree["choices"]:
            message = self._messages.setdefault(part["index"], Message())
            message.take(msgspec.convert(part.get("delta") or {"content": part.get("text")}, Delta))
            message.finish_reason = part["finish_reason"] or message.finish_reason
        return msgspec.json.encode(tree)

    def captured(self) -> Captured:
        said = [(message.message(), message.finish_reason) for _, message in sorted(self._messages.items())]
        return recorded(self._trace, said, self._trace.usage or self._usage)


def recorded(trace: Trace, said: list[tuple[dict[str, Any], str | None]], usage: dict[str, Any]) -> Captured:
    ids, values = cut(trace.ids, trace.lengths, len(said)), cut(trace.log_probs, trace.lengths, len(said))
    choices = [Choice(index, ids[index], values[index], *message) for index, message in enumerate(said)]
    return Captured([], choices, usage, exact=False, lacks_prompt=types.paired(choices, usage))


def cut(flat: Sequence[Any], lengths: list[int], n: int) -> list[list[Any]]:
    rest = iter(flat)
    return [list(islice(rest, length)) for length in [*lengths, *([0] * (n - len(lengths)))]]


def command(start: Start) -> Command:
    argv = [sys.executable, "-m", "tests.contracts.other.server", "--port", str(start.port), "--model", start.served]
    argv += ["--slots", str(start.launch.max_num_seqs)]
    return Command(argv + [f"--adapter={name}={path}" for name, path in start.adapters.items()], {})


KIND = EngineKind(OtherWire(), OtherControl, command, frozenset({"--port", "--model", "--adapter"}))
