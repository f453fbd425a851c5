"""What a chunk of a stream goes through: splitting events, decoding ids and log-probs, hiding them from the client."""

from __future__ import annotations

from bench.without.optimisation import optimisation, override, replace
from engines import sse
from engines.vllm import capture, cut
from engines.vllm.body import Body
from engines.vllm.cut import Wants


@optimisation("an event that is one line in one read is taken as it is", instead="every read is split into events and lines")
def single_events() -> None:
    def split(buffer: bytes) -> tuple[list[bytes], bytes]:
        held = b"\r" if buffer.endswith(b"\r") else b""
        body = buffer[: len(buffer) - len(held)].replace(b"\r\n", b"\n")
        *events, rest = body.split(b"\n\n")
        payloads = [_payload(event) for event in events]
        return [payload for payload in payloads if payload is not None], rest + held

    replace(sse.split, split)


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
