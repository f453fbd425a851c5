"""What a chunk of a stream goes through: splitting events, decoding ids and log-probs, hiding them from the client."""

from __future__ import annotations

from bench.without.optimisation import optimisation, override, replace
from engines import Wants, sse
from engines.types import ENDS
from engines.vllm import capture, cut
from engines.vllm.body import ABSENT, Body, Part, ids, parse
from engines.vllm.capture import ChoicesCapture
from ratchet.errors import EngineBroken


@optimisation("an event that is one line in one read is taken as it is", instead="every read is split into events and lines")
def single_events() -> None:
    def split(buffer: bytes) -> tuple[list[bytes], bytes]:
        held = b"\r" if buffer.endswith(b"\r") else b""
        body = buffer[: len(buffer) - len(held)].replace(b"\r\n", b"\n")
        *events, rest = body.split(b"\n\n")
        payloads = [_payload(event) for event in events]
        return [payload for payload in payloads if payload is not None], rest + held

    replace(sse.split, split)
    override(ChoicesCapture, "split", staticmethod(split))


def _payload(event: bytes) -> bytes | None:
    lines = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None


@optimisation("ids and log-probs of 64 tokens are decoded together", instead="those of each chunk are decoded by themselves")
def decoding_batches() -> None:
    override(capture, "BATCH", 1)


@optimisation("ids and log-probs are cut out of a chunk's bytes", instead="the chunk is decoded, changed and encoded again")
def cutting() -> None:
    def visible(data: bytes, body: Body, wants: Wants, public_id: str, model: str) -> bytes:
        return cut._rewrite(data, wants, public_id, model) if cut._cuts(body, wants, public_id, model) else data

    override(cut, "visible", visible)


@optimisation("a chunk's choices are read in one loop", instead="a method is called for each of them")
def choices_in_line() -> None:
    def event(self: ChoicesCapture, event: bytes) -> bytes | None:
        if event == sse.DONE:
            self.done = True
            return event
        body = parse(event)
        if body.usage is not None:
            self._usage = body.usage
        if body.prompt_token_ids is not ABSENT:
            self._prompt_ids = ids(body.prompt_token_ids) or self._prompt_ids
        for part in body.choices:
            _read(self, part)
        return None if cut.hidden(event, body, self._wants) else cut.visible(event, body, self._wants, self._id, self._model)

    override(ChoicesCapture, "event", event)


def _read(stream: ChoicesCapture, part: Part) -> None:
    if part.finish_reason is not None and part.finish_reason not in ENDS:
        raise EngineBroken(f"the engine gave up: {part.finish_reason[:50]}")
    choice = stream._choices.get(part.index)
    if choice is None:
        choice = stream._choices[part.index] = capture._Choice()
    if part.token_ids is not ABSENT:
        choice.raw_ids.append(part.token_ids)
    if part.logprobs is not ABSENT:
        choice.raw_logprobs.append(part.logprobs)
    if len(choice.raw_ids) >= capture.BATCH or len(choice.raw_logprobs) >= capture.BATCH:
        choice.decode()
    if part.prompt_token_ids is not ABSENT:
        stream._prompt_ids = ids(part.prompt_token_ids) or stream._prompt_ids
    if part.finish_reason is not None:
        choice.finish_reason = part.finish_reason
    if part.text is not None:
        choice.say(part.text)
    if part.delta is not None:
        choice.take(part.delta)
