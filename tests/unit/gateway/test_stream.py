"""Forwarding a stream: its last event, a slow client, broken events."""

from __future__ import annotations

from typing import Any, cast

import pytest

from engines import Wants
from engines.vllm.capture import ChoicesCapture
from gateway.relay.stream import Forwarder
from ratchet.errors import EngineBroken
from tests.support.exchanges import exchange_reading, inference_request
from tests.support.vllm_samples import ID, MODEL, chunk, first, last, payloads

ANSWER = b"".join(b"data: %b\n\n" % event for event in [*payloads("stop_string.sse")])


class Reader:
    """A client that takes fewer than `most` chunks before it has to be waited for."""

    def __init__(self, most: int = 1000) -> None:
        self.taken: list[bytes] = []
        self.most = most

    def send_chunk(self, data: bytes) -> bool:
        self.taken.append(data)
        return len(self.taken) < self.most


def forwarder(client: Reader, capture: ChoicesCapture | None = None) -> Forwarder:
    exchange = exchange_reading(inference_request(client=cast(Any, client)))
    return Forwarder(exchange, capture or ChoicesCapture(Wants(usage=True), ID, MODEL))


def events(*data: bytes) -> bytes:
    return b"".join(b"data: %b\n\n" % one for one in data)


def test_a_stream_goes_to_the_client_up_to_its_last_event_which_is_held_back() -> None:
    client, capture = Reader(), ChoicesCapture(Wants(usage=True), ID, MODEL)
    one = forwarder(client, capture)
    assert not one.forward(ANSWER)
    assert one.finished
    assert capture.last == b"data: [DONE]\n\n"
    assert len(client.taken) == 1
    assert b"[DONE]" not in client.taken[0]


def test_a_slow_client_pauses_the_stream_until_it_has_read() -> None:
    client = Reader(most=2)
    one = forwarder(client)
    assert one.forward(events(first([1])))
    assert not one.forward(events(chunk("a", [1], [-1.0])))
    assert one.paused
    assert not one.finished
    client.most, one.paused = 9, False
    assert one.forward(events(chunk("b", [2], [-1.0])))
    assert not one.forward(events(last(1, 2), b"[DONE]"))
    assert [data.count(b"data: ") for data in client.taken] == [1, 1, 1, 1]


def test_what_came_before_a_broken_event_still_goes_out() -> None:
    client = Reader()
    one = forwarder(client)
    assert not one.forward(events(first([1]), chunk("a", [1], [-1.0]), b"{no chunk", chunk("b", [2], [-1.0])))
    with pytest.raises(EngineBroken, match="not OpenAI's form"):
        assert one.finished
    assert b'"a"' in client.taken[0]
    assert b'"b"' not in client.taken[0]
