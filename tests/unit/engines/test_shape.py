"""What is split by its shape is captured and shown as if it had been parsed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines import capture as room
from engines import cut, shape, wire
from engines.capture import Captured, StreamCapture, Wants
from ratchet.errors import EngineBroken
from tests.unit.engines.samples import ID, MODEL, chunk, first, last, payloads

HOSTILE = (
    '"},"logprobs":null',
    '","logprobs":{}',
    ',"finish_reason":null,"token_ids":[',
    '"token_ids":[9]',
    "\\",
    '"',
    "\n",
    "\x00",
    "é🙂",
    "]}",
)
texts = st.one_of(st.sampled_from(HOSTILE), st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=12))
tokens = st.lists(st.tuples(texts, st.lists(st.integers(0, 2**31), max_size=3)), min_size=1, max_size=12)


def heard(
    events: list[bytes], *, split: bool, wants: Wants | None = None, ident: str = "chatcmpl-7"
) -> tuple[list[bytes | None], Captured]:
    capture = StreamCapture(wants or Wants(), ident, "alias")
    if not split:
        capture._lessons = 0
    return [capture.event(event) for event in events], capture.captured()


def taught(event: bytes) -> shape.Shape | None:
    body = wire.parse(event)
    return shape.learn(event, body, cut.visible(event, body, Wants(), ID, "alias"))


@given(tokens)
def test_any_stream_is_heard_and_shown_the_same_whether_split_or_parsed(said: list[tuple[str, list[int]]]) -> None:
    events = [first([1, 2]), *(chunk(text, ids, [-0.5] * len(ids)) for text, ids in said), last(2, sum(len(ids) for _, ids in said))]
    assert heard(events, split=True) == heard(events, split=False)


@pytest.mark.parametrize("name", ["stop_string.sse", "completion.sse", "two_choices.sse", "tool.sse", "empty.sse"])
@pytest.mark.parametrize("wants", [Wants(), Wants(logprobs=True), Wants(token_ids=True), Wants(usage=True)])
def test_a_recorded_stream_is_heard_and_shown_the_same_whether_split_or_parsed(name: str, wants: Wants) -> None:
    events = payloads(name)
    assert heard(events, split=True, wants=wants) == heard(events, split=False, wants=wants)


def test_most_of_a_recorded_stream_is_split(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[bytes] = []
    real = wire.parse
    monkeypatch.setattr(room.wire, "parse", lambda data: parsed.append(data) or real(data))
    events = payloads("stop_string.sse")
    heard(events, split=True)
    assert len(parsed) <= 5 < len(events) / 2


def test_a_plain_chunks_shape_splits_the_next_one_at_its_text_its_log_probs_and_its_ids() -> None:
    found = taught(chunk("a", [1], [-1.0]))
    assert found is not None
    text, logprobs, ids = found.split(chunk("b c", [2, 3], [-2.0, -3.0])) or (b"", b"", b"")
    assert (text, ids) == (b"b c", b"[2,3]")
    assert [entry["logprob"] for entry in msgspec.json.decode(logprobs)["content"]] == [-2.0, -3.0]


def other(**fields: Any) -> bytes:
    """A chunk whose choice has these fields too."""
    tree = msgspec.json.decode(chunk("a", [1], [-1.0]))
    tree["choices"][0] |= fields
    return msgspec.json.encode(tree)


@pytest.mark.parametrize(
    "event",
    [
        first([1]),
        last(1, 1),
        other(finish_reason="stop"),
        other(delta={"role": "assistant", "content": "a"}),
        other(delta={"content": 'a "word"'}),
        other(delta={"reasoning_content": "hm"}),
        other(prompt_token_ids=[1, 2]),
        chunk("a", [1], [-1.0], usage={"prompt_tokens": 1}),
        chunk("a", [1], [-1.0]).replace(b":", b": "),
    ],
    ids=["first", "last", "ending", "role", "quotes", "reasoning", "prompt", "usage", "spaces"],
)
def test_a_chunk_that_is_not_plain_teaches_no_shape_and_is_not_split(event: bytes) -> None:
    plain = taught(chunk("a", [1], [-1.0]))
    assert plain is not None
    assert taught(event) is None
    assert plain.split(event) is None


@pytest.mark.parametrize(
    "event",
    [
        chunk("b", [2], [-1.0]).replace(b'"content":"b"', b'"content":"b","reasoning":"c"'),
        chunk("b", [2], [-1.0]).replace(b"[2]", b"[2],[3]"),
        chunk("b", [2], [-1.0]).replace(b'"b"}', b'"b"} '),
        chunk("b", [2], [-1.0], service_tier="x"),
        chunk("b", [2], [-1.0])[:-1],
        b"[DONE]",
        b"",
    ],
    ids=["another field", "two lists", "space", "a tail", "cut", "done", "nothing"],
)
def test_what_only_begins_like_a_plain_chunk_is_not_split(event: bytes) -> None:
    plain = taught(chunk("a", [1], [-1.0]))
    assert plain is not None
    assert plain.split(event) is None


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("more", [b'"finish_reason":"stop"', b'"x":{"content":[]}', b'"x":null,"finish_reason":"stop"'])
def test_a_key_between_log_probs_and_ids_that_plain_chunks_leave_out_is_not_lost(more: bytes, told: bool) -> None:
    plain, ending = (chunk(text, [1], [-1.0]).replace(b'"finish_reason":null,', b"") for text in "ab")
    if not told:
        ending = ending.replace(bytes(wire.parse(ending).choices[0].logprobs), b"null")
    events = [plain, ending.replace(b',"token_ids"', b',%b,"token_ids"' % more)]
    assert heard(events, split=True) == heard(events, split=False)


@pytest.mark.parametrize("text", [b"\\x", b"\x01", b"\xff"])
def test_a_split_text_that_is_no_json_breaks_the_answer_at_its_end(text: bytes) -> None:
    capture = StreamCapture(Wants(), ID, MODEL)
    for event in (chunk("a", [1], [-1.0]), chunk("TEXT", [2], [-1.0]).replace(b'"content":"TEXT"', b'"content":"%b"' % text)):
        capture.event(event)
    with pytest.raises(EngineBroken, match="not OpenAI's form"):
        capture.captured()
    assert capture.captured().choices[0].token_ids == []


def test_a_stream_of_other_chunks_is_looked_at_a_few_times_only(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[bytes] = []
    monkeypatch.setattr(room.shape, "learn", lambda data, *_: looked.append(data))
    heard([chunk(f'"{i}"', [i], [-1.0]) for i in range(20)], split=True)
    assert len(looked) == room.LESSONS
