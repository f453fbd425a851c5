"""engines.openai.events: how responses and messages are read; real vLLM's (tests/support/recorded) among them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engines import Captured, Wants, sse
from engines.openai.events import MessagesCapture, ResponsesCapture, capture_message, capture_response, kind_of, tree_of
from ratchet.errors import EngineBroken
from tests.support.vllm_samples import forms, payloads, whole

OVERLAY = {"previous_response_id": None, "metadata": {"a": "b"}, "store": True, "background": False}
PATCH = {"id": "resp_x", "model": "support@3", **OVERLAY}
SHOWN = (Wants(overlay=OVERLAY), "resp_x", "support@3")
SECRET = "the prompt's own words"
FORMS = forms()


def response(events: list[bytes]) -> tuple[list[bytes], ResponsesCapture]:
    capture = ResponsesCapture(*SHOWN)
    return [seen for event in events if (seen := capture.event(event)) is not None], capture


def message(events: list[bytes]) -> tuple[list[bytes], MessagesCapture]:
    capture = MessagesCapture("msg_x", "support@3")
    return [seen for event in events if (seen := capture.event(event)) is not None], capture


def made(name: str) -> list[bytes]:
    found, rest = sse.split(FORMS[name].encode())
    assert rest == b""
    return found


def event(kind: str, **fields: Any) -> bytes:
    return json.dumps({"type": kind, **fields}).encode()


def text_calls_and_finish(captured: Captured) -> tuple[Any, Any, Any]:
    """The message's text, its calls' names and arguments, its end."""
    [choice] = captured.choices
    assert (captured.exact, captured.prompt_ids, choice.token_ids, choice.logprobs) == (False, [], [], [])
    calls = [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in choice.message.get("tool_calls", ())]
    return choice.message["content"], calls, choice.finish_reason


# Responses


@pytest.mark.parametrize("name", ["response.sse", "response_tool.sse"])
def test_vllms_stream_is_passed_on_but_for_the_response_objects(name: str) -> None:
    events = payloads(name)
    seen, capture = response(events)
    assert capture.done
    assert len(seen) == len(events)
    for sent, passed in zip(events, seen, strict=True):
        if b'"response":{' not in sent:
            assert passed is sent
            continue
        before, after = json.loads(sent), json.loads(passed)
        assert after == {**before, "response": {**before["response"], **PATCH}}
        assert list(after["response"])[: len(before["response"])] == list(before["response"])
    captured = capture.captured()
    assert captured.response == json.loads(seen[-1])["response"]
    usage = captured.response["usage"] if captured.response is not None else {}
    assert captured.usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


def test_a_streams_text_and_its_end_are_heard() -> None:
    _, capture = response(made("response streamed"))
    assert text_calls_and_finish(capture.captured()) == ("naïve 🙂", [], "stop")
    assert capture.captured().finished


def test_a_response_that_was_cut_at_its_limit_ends_for_its_length() -> None:
    assert text_calls_and_finish(response(made("response cut"))[1].captured()) == ("na", [], "length")


@pytest.mark.parametrize("kind", ["response.completed", "response.incomplete"])
def test_either_terminal_event_ends_it(kind: str) -> None:
    capture = ResponsesCapture(*SHOWN)
    assert capture.event(event(kind, response={"status": "incomplete", "output": []})) is not None
    assert capture.done


def test_a_function_call_is_kept_as_a_chats() -> None:
    _, capture = response(made("response of a call, streamed"))
    text, calls, end = text_calls_and_finish(capture.captured())
    assert (text, end) == (None, "tool_calls")
    assert calls == [("get_weather", {"place": "Åre", "days": 2})]


@pytest.mark.parametrize("name", ["response", "response of a call"])
def test_a_whole_response_is_kept_as_its_stream(name: str) -> None:
    seen, captured = capture_response(FORMS[name].encode(), *SHOWN)
    assert json.loads(seen) == {**json.loads(FORMS[name]), **PATCH} == captured.response
    assert text_calls_and_finish(captured) == text_calls_and_finish(
        response(made(name + " streamed" if name == "response" else name + ", streamed"))[1].captured()
    )


def test_a_real_response_is_captured() -> None:
    _, captured = capture_response(whole("response.json"), *SHOWN)
    text, calls, _ = text_calls_and_finish(captured)
    assert text and not calls and captured.finished


def test_a_stream_that_breaks_off_keeps_its_text_and_is_neither_done_nor_finished() -> None:
    _, capture = response(made("response streamed")[:6])
    assert text_calls_and_finish(capture.captured()) == ("na", [], None)
    assert not capture.done and not capture.captured().finished and capture.captured().response is None


@pytest.mark.parametrize("status", ["failed", "cancelled", "queued", None])
def test_a_response_that_did_not_end_well_is_not_finished(status: str | None) -> None:
    body = json.dumps({"object": "response", "status": status, "output": []}).encode()
    assert not capture_response(body, *SHOWN)[1].finished


@pytest.mark.parametrize(
    "payload",
    [
        event("error", message=SECRET),
        event("response.failed", response={"error": {"message": SECRET}}),
        b"",
        b"[DONE]",
        b"[]",
        b"{}",
        b'{"type":5}',
        b"\xff",
        event("response.output_text.delta", delta=5),
        event("response.output_text.delta", delta={"text": "x"}),
        event("response.completed", response={"output": 5}),
        event("response.completed", response={"output": [{"type": 5}]}),
        event("response.completed", response={"output": [{"type": "message", "content": 5}]}),
        event("response.completed", response={"usage": []}),
        event("response.completed", response={"status": 5}),
        event("response.created", response={}, error={"message": SECRET}),
    ],
)
def test_an_event_of_a_failure_or_of_another_form_is_broken_without_its_words(payload: bytes) -> None:
    capture = ResponsesCapture(*SHOWN)
    with pytest.raises(EngineBroken) as error:
        capture.event(payload)
    assert SECRET not in str(error.value)
    assert not capture.done


def test_unknown_events_pass() -> None:
    odd = [event("response.audio.delta", delta="x"), event("ping"), event("response.queued"), event("response.created", response=5)]
    assert response(odd)[0] == odd


@pytest.mark.parametrize("body", [b"", b"[]", b'{"object":"chat.completion"}', b'{"error":{"message":"%s"}}' % SECRET.encode()])
def test_what_is_no_response_is_broken(body: bytes) -> None:
    with pytest.raises(EngineBroken) as error:
        capture_response(body, *SHOWN)
    assert SECRET not in str(error.value)


# Messages


@pytest.mark.parametrize("name", ["message.sse", "message_tool.sse", "message_stop.sse"])
def test_vllms_stream_is_passed_on_but_for_the_messages_id_and_model(name: str) -> None:
    events = payloads(name)
    seen, capture = message(events)
    assert capture.done
    first, begun = json.loads(events[0]), json.loads(seen[0])
    assert begun == {**first, "message": {**first["message"], "id": "msg_x", "model": "support@3"}}
    assert all(passed is sent for sent, passed in zip(events[1:], seen[1:], strict=True))
    assert capture.captured().usage["total_tokens"] > capture.captured().usage["completion_tokens"] > 0


def test_a_streamed_messages_text_end_and_usage_are_heard() -> None:
    _, capture = message(made("message streamed"))
    assert text_calls_and_finish(capture.captured()) == ("naïve 🙂", [], "stop")
    assert capture.captured().usage == {"prompt_tokens": 31, "completion_tokens": 12, "total_tokens": 43}


def test_a_message_that_was_cut_at_its_limit_ends_for_its_length() -> None:
    assert text_calls_and_finish(message(made("message cut"))[1].captured()) == ("na", [], "length")


def test_a_streamed_tool_use_is_put_together() -> None:
    assert text_calls_and_finish(message(made("message of a call, streamed"))[1].captured()) == (
        None,
        [("get_weather", {"place": "Åre", "days": 2})],
        "tool_calls",
    )


@pytest.mark.parametrize("name", ["message", "message of a call"])
def test_a_whole_message_is_kept_as_its_stream(name: str) -> None:
    seen, captured = capture_message(FORMS[name].encode(), "msg_x", "support@3")
    assert json.loads(seen) == {**json.loads(FORMS[name]), "id": "msg_x", "model": "support@3"}
    streamed = message(made(name + (" streamed" if name == "message" else ", streamed")))[1].captured()
    assert (text_calls_and_finish(captured), captured.usage) == (text_calls_and_finish(streamed), streamed.usage)


def test_tokens_from_a_cache_count_as_the_prompts() -> None:
    body = json.loads(whole("message.json"))
    body["usage"] = {"input_tokens": 3, "output_tokens": 4, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 16}
    expected = {"prompt_tokens": 19, "completion_tokens": 4, "total_tokens": 23}
    assert capture_message(json.dumps(body).encode(), "msg_x", "m")[1].usage == expected
    events = [event.replace(b'"cache_read_input_tokens":0', b'"cache_read_input_tokens":16') for event in payloads("message.sse")]
    assert message(events)[1].captured().usage["prompt_tokens"] == json.loads(events[-2])["usage"]["input_tokens"] + 16


def test_a_stop_sequence_is_an_end() -> None:
    assert text_calls_and_finish(capture_message(FORMS["message stopped"].encode(), "msg_x", "m")[1]) == ("naï", [], "stop")


def test_thinking_is_no_text() -> None:
    blocks = [{"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "text", "text": "yes"}]
    body = json.dumps({"type": "message", "content": blocks, "stop_reason": "end_turn"}).encode()
    assert text_calls_and_finish(capture_message(body, "msg_x", "m")[1]) == ("yes", [], "stop")
    deltas = [
        {"type": "thinking_delta", "thinking": "hm"},
        {"type": "text_delta", "text": "yes"},
        {"type": "input_json_delta", "partial_json": "{"},
    ]
    events = [event("content_block_delta", index=i, delta=delta) for i, delta in enumerate(deltas)]
    assert text_calls_and_finish(message(events)[1].captured()) == ("yes", [], None)


def test_a_message_that_breaks_off_keeps_its_text_and_is_neither_done_nor_finished() -> None:
    _, capture = message(made("message streamed")[:4])
    assert text_calls_and_finish(capture.captured()) == ("na", [], None)
    assert not capture.done and not capture.captured().finished


@pytest.mark.parametrize(
    "payload",
    [
        event("error", error={"type": "internal_error", "message": SECRET}),
        b"",
        b"[]",
        b"{}",
        event("message_start", message=5),
        event("message_start", message={"usage": []}),
        event("message_start", message={}, error={"message": SECRET}),
        event("content_block_delta", delta=5),
        event("content_block_delta", delta={"text": 5}),
        event("content_block_start", index="x", content_block={}),
        event("message_delta", delta=[]),
        event("message_delta", usage={"output_tokens": "5"}),
    ],
)
def test_an_event_of_a_failure_or_of_no_message_is_broken_without_its_words(payload: bytes) -> None:
    with pytest.raises(EngineBroken) as error:
        MessagesCapture("msg_x", "m").event(payload)
    assert SECRET not in str(error.value)


def test_a_ping_and_unknown_events_pass() -> None:
    odd = [event("ping"), event("message_start"), event("content_block_stop", index=0), event("later", whatever={"a": 1})]
    assert message(odd)[0] == odd


@pytest.mark.parametrize("body", [b"[]", b'{"type":"error","error":{"message":"x"}}', b'{"type":"completion"}', b'{"content":5}'])
def test_what_is_no_message_is_broken(body: bytes) -> None:
    with pytest.raises(EngineBroken):
        capture_message(body, "msg_x", "m")


def test_an_unknown_reason_is_no_end() -> None:
    body = json.dumps({"type": "message", "content": [], "stop_reason": "pause_turn", "usage": {"input_tokens": 1}}).encode()
    captured = capture_message(body, "msg_x", "m")[1]
    assert (captured.finished, captured.usage) == (False, {})


def test_an_events_kind_and_tree() -> None:
    assert kind_of(b'{"x":{"type":"inner"},"type":"outer"}') == "outer"
    assert tree_of(b'{"error":null,"a":1}') == {"error": None, "a": 1}
