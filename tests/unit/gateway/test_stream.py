"""What a stream on its way does with a client that reads slowly, with its last event, and with what is broken."""

from __future__ import annotations

from typing import Any, cast

import pytest

from engines import Wants
from engines.vllm.capture import ChoicesCapture
from gateway.relay.stream import Flow
from ratchet.errors import EngineBroken
from tests.support.exchanges import exchange_reading, inference_request
from tests.unit.engines.vllm_samples import ID, MODEL, chunk, first, last, payloads

ANSWER = b"".join(b"data: %b\n\n" % event for event in [*payloads("stop_string.sse")])


class Reader:
    """A client that takes `most` pieces before it is behind."""

    def __init__(self, most: int = 1000) -> None:
        self.taken: list[bytes] = []
        self.most = most

    def send_chunk(self, data: bytes) -> bool:
        self.taken.append(data)
        return len(self.taken) < self.most


def flow(client: Reader, capture: ChoicesCapture | None = None) -> Flow:
    exchange = exchange_reading(inference_request(client=cast(Any, client)))
    return Flow(exchange, capture or ChoicesCapture(Wants(usage=True), ID, MODEL))


def events(*data: bytes) -> bytes:
    return b"".join(b"data: %b\n\n" % one for one in data)


def test_a_stream_goes_to_the_client_up_to_its_last_event_which_is_kept_back() -> None:
    client, capture = Reader(), ChoicesCapture(Wants(usage=True), ID, MODEL)
    one = flow(client, capture)
    assert not one.take(ANSWER)
    assert one.over
    assert capture.last == b"data: [DONE]\n\n"
    assert len(client.taken) == 1
    assert b"[DONE]" not in client.taken[0]


def test_a_client_that_is_behind_stops_the_flow_until_it_has_read() -> None:
    client = Reader(most=2)
    one = flow(client)
    assert one.take(events(first([1])))
    assert not one.take(events(chunk("a", [1], [-1.0])))
    assert one.behind
    assert not one.over
    client.most, one.behind = 9, False
    assert one.take(events(chunk("b", [2], [-1.0])))
    assert not one.take(events(last(1, 2), b"[DONE]"))
    assert [data.count(b"data: ") for data in client.taken] == [1, 1, 1, 1]


def test_what_came_before_a_broken_event_still_goes_out() -> None:
    client = Reader()
    one = flow(client)
    assert not one.take(events(first([1]), chunk("a", [1], [-1.0]), b"{no chunk", chunk("b", [2], [-1.0])))
    with pytest.raises(EngineBroken, match="not OpenAI's form"):
        assert one.over
    assert b'"a"' in client.taken[0]
    assert b'"b"' not in client.taken[0]
