"""What is read from vLLM's named events and whole answers (recorded/), and what of them is changed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engines.capture import Captured
from engines.events import MessagesCapture, ResponsesCapture, capture_message, capture_response
from ratchet.errors import EngineBroken
from tests.unit.engines.samples import payloads, whole

RESPONSE, MESSAGE = "resp_" + "cd" * 16, "msg_" + "cd" * 16
MODEL = "support@3"
PATCH = {"id": RESPONSE, "model": MODEL, "store": True}


def heard(capture: ResponsesCapture | MessagesCapture, name: str) -> tuple[list[bytes], Captured]:
    """What the client sees of a recorded stream, every event of which it sees, and what is kept."""
    seen = []
    for event in payloads(name):
        assert not capture.done
        seen.append(capture.event(event) or b"")
    assert capture.done
    return seen, capture.captured()


def without(tree: Any, *keys: str) -> Any:
    return {key: value for key, value in tree.items() if key not in keys}


def test_a_streamed_response_is_kept_as_its_last_event_tells_it() -> None:
    seen, captured = heard(ResponsesCapture(PATCH), "response.sse")
    sent = payloads("response.sse")
    deltas = [json.loads(event)["delta"] for event in sent if b'"type":"response.output_text.delta"' in event]
    assert captured.choices[0].message == {"role": "assistant", "content": "".join(deltas)}
    assert captured.finished and not captured.exact
    assert captured.response == json.loads(seen[-1])["response"]
    told = json.loads(sent[-1])["response"]["usage"]
    assert captured.usage["completion_tokens"] == told["output_tokens"] == len(deltas)
    assert captured.usage["total_tokens"] == told["total_tokens"]


def test_of_a_streamed_response_only_the_response_objects_are_changed() -> None:
    seen, _ = heard(ResponsesCapture(PATCH), "response.sse")
    changed = [(json.loads(old), json.loads(new)) for old, new in zip(payloads("response.sse"), seen, strict=True) if old != new]
    assert [new["type"] for _, new in changed] == ["response.created", "response.in_progress", "response.completed"]
    for old, new in changed:
        assert without(new, "response") == without(old, "response")
        assert new["response"] == old["response"] | PATCH


@pytest.mark.parametrize("name", ["response_tool.sse", "response_tool.json"])
def test_a_function_call_in_a_response_is_kept_as_a_chats_would_be(name: str) -> None:
    if name.endswith("sse"):
        _, captured = heard(ResponsesCapture(PATCH), name)
    else:
        _, captured = capture_response(whole(name), PATCH)
    assert captured.choices[0].finish_reason == "tool_calls"
    assert captured.response is not None
    told = captured.response["output"][0]
    (call,) = captured.choices[0].message["tool_calls"]
    assert captured.choices[0].message["content"] is None
    assert call["id"] == told["call_id"]
    assert call["function"] == {"name": "get_weather", "arguments": told["arguments"]}


def test_a_whole_response_gets_the_gateways_id_and_name() -> None:
    seen, captured = capture_response(whole("response.json"), PATCH)
    assert json.loads(seen) == json.loads(whole("response.json")) | PATCH == captured.response
    text = json.loads(seen)["output"][0]["content"][0]["text"]
    assert captured.choices[0].message["content"] == text
    cut = json.loads(whole("response.json"))["status"] == "incomplete"
    assert captured.choices[0].finish_reason == ("length" if cut else "stop")


@pytest.mark.parametrize("name", ["message.sse", "message_tool.sse", "message_stop.sse"])
def test_of_a_streamed_message_only_id_and_name_are_changed(name: str) -> None:
    seen, captured = heard(MessagesCapture(MESSAGE, MODEL), name)
    sent = payloads(name)
    assert seen[1:] == sent[1:]
    first = json.loads(sent[0])
    assert json.loads(seen[0]) == {**first, "message": first["message"] | {"id": MESSAGE, "model": MODEL}}
    assert captured.finished and not captured.exact
    deltas = [json.loads(event)["delta"] for event in sent if b'"type":"content_block_delta"' in event]
    kept = captured.choices[0].message
    assert (kept["content"] or "") == "".join(delta.get("text", "") for delta in deltas)
    arguments = "".join(delta.get("partial_json", "") for delta in deltas)
    assert [call["function"]["arguments"] for call in kept.get("tool_calls", ())] == ([arguments] if arguments else [])


@pytest.mark.parametrize(("name", "reason"), [("message_stop.sse", "stop"), ("message_tool.sse", "tool_calls")])
def test_a_messages_end_is_told_in_openais_words(name: str, reason: str) -> None:
    assert heard(MessagesCapture(MESSAGE, MODEL), name)[1].choices[0].finish_reason == reason


def test_a_whole_message_gets_the_gateways_id_and_name() -> None:
    seen, captured = capture_message(whole("message.json"), MESSAGE, MODEL)
    assert json.loads(seen) == json.loads(whole("message.json")) | {"id": MESSAGE, "model": MODEL}
    assert captured.choices[0].message["content"] == json.loads(seen)["content"][0]["text"]


def test_tokens_from_a_cache_count_as_the_prompts() -> None:
    body = json.loads(whole("message.json"))
    body["usage"] = {"input_tokens": 3, "output_tokens": 4, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 16}
    usage = capture_message(json.dumps(body).encode(), MESSAGE, MODEL)[1].usage
    capture = MessagesCapture(MESSAGE, MODEL)
    for event in payloads("message.sse"):
        capture.event(event.replace(b'"cache_read_input_tokens":0', b'"cache_read_input_tokens":16'))
    counted = json.loads(payloads("message.sse")[-2])["usage"]
    assert capture.captured().usage["prompt_tokens"] == counted["input_tokens"] + 16
    assert usage == {"prompt_tokens": 19, "completion_tokens": 4, "total_tokens": 23}
    assert capture_message(json.dumps(without(body, "usage")).encode(), MESSAGE, MODEL)[1].usage == {}


def test_a_stream_that_breaks_off_is_not_done_and_keeps_what_came() -> None:
    responses, messages = ResponsesCapture(PATCH), MessagesCapture(MESSAGE, MODEL)
    for capture, name in ((responses, "response.sse"), (messages, "message.sse")):
        events = payloads(name)
        cut = next(i for i, event in enumerate(events) if b"delta" in event) + 1
        for event in events[:cut]:
            capture.event(event)
        assert not capture.done
        assert capture.captured().choices[0].message["content"]
        assert not capture.captured().finished


@pytest.mark.parametrize(
    "event",
    [
        b'{"type":"error","error":{"type":"InternalServerError","message":"dead"}}',
        b'{"type":"response.failed","response":{"status":"failed"}}',
        b"[DONE]",
        b'{"error":{"message":"dead"}}',
    ],
)
def test_an_error_among_the_events_is_broken(event: bytes) -> None:
    with pytest.raises(EngineBroken):
        ResponsesCapture(PATCH).event(event)


def test_a_whole_answer_of_another_kind_is_broken() -> None:
    for body in (b"[]", b"moon", b'{"object":"list"}', b'{"error":{"message":"dead"}}'):
        with pytest.raises(EngineBroken):
            capture_response(body, PATCH)
        with pytest.raises(EngineBroken):
            capture_message(body, MESSAGE, MODEL)
