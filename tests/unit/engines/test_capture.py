from __future__ import annotations

import json
import tracemalloc

import msgspec
import pytest

from engines import Wants
from engines.vllm.capture import ChoicesCapture, capture_whole
from ratchet.errors import EngineBroken
from tests.support.vllm_samples import ID, MODEL, chunk, first, last, payloads, stream, whole


def test_a_streamed_answer_is_captured_exactly() -> None:
    _, captured = stream(payloads("stop_string.sse"))
    choice = captured.choices[0]
    assert captured.exact
    assert choice.token_ids[:4] == [504, 1230, 216, 33]
    assert choice.token_ids[-1] == 35  # the stop string's token was sampled, though the client does not see it
    assert choice.logprobs[0] == pytest.approx(-2.2164182662963867, abs=0)
    assert choice.message == {"role": "assistant", "content": "The number 1 is 1, the number 2 is 2, the number "}
    assert choice.finish_reason == "stop"
    assert len(captured.prompt_ids) == captured.usage["prompt_tokens"]


def test_each_of_two_choices_is_captured_by_itself() -> None:
    _, captured = stream(payloads("two_choices.sse"))
    assert captured.exact
    assert [c.index for c in captured.choices] == [0, 1]
    assert [c.message["content"] for c in captured.choices] == ["Maliassalam", "Hi there, ready"]
    assert [c.token_ids for c in captured.choices] == [[61, 8012, 520, 20462], [26843, 665, 28, 4421]]


def test_an_empty_answer_is_the_end_token_alone_and_exact() -> None:
    for captured in (stream(payloads("empty.sse"))[1], capture_whole(whole("empty.json"), Wants(), ID, MODEL)[1]):
        assert captured.exact
        assert captured.choices[0].token_ids == [2]
        assert captured.choices[0].logprobs == [0.0]
        assert captured.choices[0].message["content"] == ""


def test_a_tool_call_is_put_together_from_its_deltas() -> None:
    _, captured = stream(payloads("tool.sse"))
    message = captured.choices[0].message
    assert captured.exact
    assert message["content"] is None
    assert message["tool_calls"] == [
        {"id": "chatcmpl-tool-918552ab64c0c460", "type": "function", "function": {"name": "get_weather", "arguments": '"gaben"'}}
    ]


def test_reasoning_and_refusals_are_kept_beside_the_content() -> None:
    events = [
        b'{"choices":[{"index":0,"delta":{"reasoning":"be"}}]}',
        b'{"choices":[{"index":0,"delta":{"reasoning":"cause","refusal":"no"}}]}',
    ]
    assert stream(events)[1].choices[0].message == {"role": "assistant", "content": None, "reasoning": "because", "refusal": "no"}


def test_a_whole_answer_is_captured_exactly() -> None:
    _, captured = capture_whole(whole("whole.json"), Wants(), ID, MODEL)
    body = json.loads(whole("whole.json"))
    assert captured.exact
    assert captured.prompt_ids == body["prompt_token_ids"]
    assert captured.choices[0].token_ids == body["choices"][0]["token_ids"]
    assert captured.choices[0].logprobs == [e["logprob"] for e in body["choices"][0]["logprobs"]["content"]]
    assert captured.choices[0].message == body["choices"][0]["message"]


def test_a_stream_that_was_cut_off_is_neither_exact_nor_done() -> None:
    capture = ChoicesCapture(Wants(), ID, MODEL)
    for event in payloads("stop_string.sse")[:5]:
        capture.event(event)
    assert not capture.done and not capture.finished
    assert not capture.captured().exact
    assert capture.captured().choices[0].token_ids == [504, 1230, 216, 33]


def test_a_stream_is_finished_when_every_choice_told_its_end() -> None:
    capture = ChoicesCapture(Wants(), ID, MODEL)
    finished = [capture.finished]
    for event in payloads("two_choices.sse"):
        capture.event(event)
        finished.append(capture.finished)
    assert finished.index(True) == len(finished) - 3  # before the usage chunk and [DONE]
    assert capture.done


def test_an_answer_that_the_engine_gave_up_is_broken_and_not_finished() -> None:
    capture = ChoicesCapture(Wants(), ID, MODEL)
    capture.event(chunk("a", [7], [-0.5]))
    with pytest.raises(EngineBroken, match="abort"):
        capture.event(b'{"choices":[{"index":0,"delta":{"content":"b"},"finish_reason":"abort"}]}')
    assert not capture.finished
    assert capture.captured().choices[0].message["content"] == "ab"
    sound, given_up = whole("whole.json"), json.loads(whole("whole.json"))
    given_up["choices"][0]["finish_reason"] = "abort"
    assert capture_whole(sound, Wants(), ID, MODEL)[1].finished
    assert not capture_whole(json.dumps(given_up).encode(), Wants(), ID, MODEL)[1].finished


@pytest.mark.parametrize("missing", [None, -9999.0])
def test_a_log_prob_that_the_engine_lacks_is_left_out_and_not_exact(missing: float | None) -> None:
    _, captured = stream([first([5]), chunk("a", [7], [-0.5]), chunk("b", [8], [missing]), last(1, 2)])
    assert captured.choices[0].logprobs == [-0.5]
    assert not captured.exact


def test_fewer_ids_than_the_engine_counted_is_not_exact() -> None:
    assert stream([first([5]), chunk("a", [7], [-0.5]), last(1, 1)])[1].exact
    assert not stream([first([5]), chunk("a", [7], [-0.5]), last(1, 2)])[1].exact
    assert not stream([first([5]), chunk("a", [7], [-0.5]), last(2, 1)])[1].exact


def test_no_usage_is_not_exact() -> None:
    assert not stream([first([5]), chunk("a", [7], [-0.5])])[1].exact


def test_two_missing_log_probs_are_not_made_up_by_counts_that_match() -> None:
    events = [first([5]), chunk("a", [7], [None, -0.5]), last(1, 1)]
    assert not stream(events)[1].exact


def test_an_error_in_the_stream_raises_without_its_words_which_may_be_the_prompts() -> None:
    with pytest.raises(EngineBroken, match="reports an error") as raised:
        stream([first([5]), b'{"error":{"message":"cannot continue: my secret","code":500}}'])
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("payload", [b"", b"[", b"\xff", b'"text"', b'{"choices":[{"index":"a"}]}', b'{"choices":[{"token_ids":["a"]}]}'])
def test_what_is_no_chunk_raises(payload: bytes) -> None:
    with pytest.raises(EngineBroken):
        stream([payload])


def test_a_whole_answer_without_choices_raises() -> None:
    with pytest.raises(EngineBroken, match="no choices"):
        capture_whole(b'{"choices":[]}', Wants(), ID, MODEL)


def test_captured_survives_the_store() -> None:
    _, captured = stream(payloads("two_choices.sse"))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(captured), type=type(captured)) == captured


def test_ids_without_log_probs_keep_no_event_in_memory() -> None:
    capture = ChoicesCapture(Wants(), ID, MODEL)
    tracemalloc.start()
    try:
        for i in range(5000):
            capture.event(
                json.dumps({"id": ID, "model": MODEL, "choices": [{"token_ids": [i]}], "system_fingerprint": "x" * 2000}).encode()
            )
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert held < 2**20
    assert capture.captured().choices[0].token_ids == list(range(5000))


def test_ids_of_another_form_fail_once_and_what_came_before_is_kept() -> None:
    capture = ChoicesCapture(Wants(), ID, MODEL)
    capture.event(first([1, 2, 3]))
    capture.event(chunk("hello", [5], [-0.5]))
    capture.event(json.dumps({"id": ID, "model": MODEL, "choices": [{"token_ids": {"no": "list"}}]}).encode())
    with pytest.raises(EngineBroken):
        capture.captured()
    kept = capture.captured()
    assert not kept.exact
    assert kept.choices[0].message["content"] == "hello"
