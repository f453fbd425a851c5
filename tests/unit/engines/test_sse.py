from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from engines import sse

PAYLOAD = st.binary(min_size=1, max_size=40).filter(lambda b: b"\n" not in b and b"\r" not in b)


def feed(pieces: list[bytes]) -> tuple[list[bytes], bytes]:
    found, rest = [], b""
    for piece in pieces:
        events, rest = sse.split(rest + piece)
        found += events
    return found, rest


@given(st.lists(PAYLOAD, max_size=6), st.lists(st.integers(0, 300), max_size=8), st.sampled_from([b"\n", b"\r\n"]))
def test_payloads_come_out_the_same_wherever_the_bytes_are_cut(payloads: list[bytes], cuts: list[int], end: bytes) -> None:
    wire = b"".join(b"data: " + p + end + end for p in payloads)
    at = [0, *sorted(min(c, len(wire)) for c in cuts), len(wire)]
    pieces = [wire[a:b] for a, b in pairwise(at)]
    assert feed(pieces) == (payloads, b"")


@given(st.lists(PAYLOAD, max_size=6), st.lists(st.integers(0, 300), max_size=8), st.sampled_from([b"\n", b"\r\n"]))
def test_names_come_with_their_payloads_wherever_the_bytes_are_cut(payloads: list[bytes], cuts: list[int], end: bytes) -> None:
    wire = b"".join(b"event: n%d" % i + end + b"data: " + p + end + end for i, p in enumerate(payloads))
    at = [0, *sorted(min(c, len(wire)) for c in cuts), len(wire)]
    found, rest = [], b""
    for a, b in pairwise(at):
        events, rest = sse.split_named(rest + wire[a:b])
        found += events
    assert (found, rest) == ([(b"n%d" % i, p) for i, p in enumerate(payloads)], b"")


def test_an_event_without_a_name_is_a_message_and_one_without_data_is_none() -> None:
    assert sse.split_named(b"data: 1\n\nevent: ping\n\n: x\n\n") == ([(b"message", b"1")], b"")


def test_what_is_framed_is_split_again() -> None:
    assert sse.split(sse.frame(b"{}") + sse.frame(sse.DONE)) == ([b"{}", b"[DONE]"], b"")


def test_an_unfinished_event_waits_for_the_rest() -> None:
    assert sse.split(b'data: {"a":1}\n\ndata: {"b"') == ([b'{"a":1}'], b'data: {"b"')


def test_comments_and_other_fields_are_dropped() -> None:
    assert sse.split(b": ping\n\nevent: x\nid: 3\ndata: 1\n\n") == ([b"1"], b"")


def test_an_event_without_data_yields_nothing() -> None:
    assert sse.split(b"event: ping\n\n") == ([], b"")


def test_lines_of_one_event_are_joined() -> None:
    assert sse.split(b"data: a\ndata:b\n\n") == ([b"a\nb"], b"")


def test_a_data_line_needs_no_space() -> None:
    assert sse.split(b"data:[DONE]\n\n") == ([b"[DONE]"], b"")


def test_only_one_space_is_taken_from_a_data_line() -> None:
    assert sse.split(b"data:  a\n\n") == ([b" a"], b"")
