"""engines.stream: captures of server-sent events, however the bytes are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines import Wants, sse, stream
from engines.openai.events import MessagesCapture
from engines.stream import EventCapture
from engines.types import Captured
from engines.vllm.capture import ChoicesCapture
from ratchet.errors import EngineBroken
from tests.support.vllm_samples import FOLDER, ID, MODEL, chunk, first, payloads

NOTHING = Captured([], [], {}, exact=False)


class Named(EventCapture[tuple[bytes, bytes]]):
    """Hides the events called `hidden`; `end` is the last one, and itself hidden."""

    split = staticmethod(sse.split_named)

    def __init__(self) -> None:
        super().__init__()
        self.read: list[tuple[bytes, bytes]] = []

    def event(self, event: tuple[bytes, bytes]) -> bytes | None:
        self.read.append(event)
        self.done = event[0] == b"end"
        return event[1] if event[0] == b"message" else None

    def captured(self) -> Captured:
        return NOTHING


def fed(capture: EventCapture[bytes], data: bytes, sizes: list[int]) -> bytes:
    """What the client sees of `data`, given in pieces of these sizes."""
    seen = b""
    for size in [*sizes, len(data)]:
        piece, data = data[:size], data[size:]
        if not capture.done:
            seen += capture.take(piece)
    assert capture.done and capture.fault is None
    return seen + capture.last


@given(st.lists(st.integers(1, 700), max_size=40))
def test_however_a_stream_is_cut_the_client_gets_the_same_bytes_and_the_record_is_the_same(sizes: list[int]) -> None:
    answer = (FOLDER / "stop_string.sse").read_bytes()
    one, other = ChoicesCapture(Wants(), ID, MODEL), ChoicesCapture(Wants(), ID, MODEL)
    assert fed(one, answer, sizes) == fed(other, answer, [])
    assert one.captured() == other.captured()
    assert one.captured().exact


@given(st.lists(st.integers(1, 700), max_size=40))
def test_named_events_keep_their_names_however_they_are_cut(sizes: list[int]) -> None:
    seen = fed(MessagesCapture("msg_x", MODEL), (FOLDER / "message_stop.sse").read_bytes(), sizes)
    assert [line for line in seen.splitlines() if line.startswith(b"event: ")] == [
        line for line in (FOLDER / "message_stop.sse").read_bytes().splitlines() if line.startswith(b"event: ")
    ]


def test_the_last_event_is_kept_back_and_nothing_after_it_is_read() -> None:
    capture = ChoicesCapture(Wants(usage=True), ID, MODEL)
    seen = capture.take(sse.frame(*payloads("stop_string.sse"), b"{no chunk"))
    assert (capture.done, capture.fault, capture.last) == (True, None, b"data: [DONE]\n\n")
    assert b"[DONE]" not in seen


def test_what_came_before_a_broken_event_is_still_seen() -> None:
    capture = ChoicesCapture(Wants(), ID, MODEL)
    seen = capture.take(sse.frame(first([1]), chunk("a", [1], [-1.0]), b"{no chunk", chunk("b", [2], [-1.0])))
    assert b'"a"' in seen and b'"b"' not in seen
    assert isinstance(capture.fault, EngineBroken)
    assert capture.captured().choices[0].token_ids == [1]


def test_an_event_without_end_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "LONGEST_EVENT", 100)
    capture = ChoicesCapture(Wants(), ID, MODEL)
    assert capture.take(b"data: " + b"x" * 90) == b""
    assert capture.fault is None
    capture.take(b"x" * 9)
    assert "without end" in str(capture.fault)


def test_an_engines_own_event_is_told_by_its_name_and_kept_from_the_client() -> None:
    capture = Named()
    seen = capture.take(b"data: 1\n\nevent: hidden\ndata: 2\n\nda")
    seen += capture.take(b"ta: 3\n\nevent:end\nid: 7\ndata: 4\n\n")
    assert seen == b"data: 1\n\ndata: 3\n\n"
    assert capture.read == [(b"message", b"1"), (b"hidden", b"2"), (b"message", b"3"), (b"end", b"4")]
    assert (capture.done, capture.last) == (True, b"")
