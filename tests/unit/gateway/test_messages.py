"""gateway.dialects.messages: what a request in Anthropic's form may hold, and what goes on to the engine."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.dialects.base import Ask
from gateway.dialects.messages import Messages
from gateway.errors import ApiError
from ratchet.config import GatewayConfig
from tests.support.dialect_refusals import refusal

MESSAGES, CONFIG = Messages(), GatewayConfig()
HELLO = [{"role": "user", "content": "hello"}]
TOOL = {"name": "look_up", "description": "x", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}}
IMAGE = {"type": "image", "source": {"type": "url", "url": "http://169.254.169.254/"}}


def ask(**fields: Any) -> Ask:
    return MESSAGES.check({"model": "support", "messages": HELLO, "max_tokens": 9, **fields}, CONFIG)


def refused(**fields: Any) -> ApiError:
    return refusal(MESSAGES, {"model": "support", "messages": HELLO, "max_tokens": 9, **fields})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", None),
        ("max_tokens", 0),
        ("messages", []),
        ("messages", "hello"),
        ("temperature", 1.1),
        ("top_p", 2),
        ("top_k", -1),
        ("stop_sequences", ["x"] * 5),
        ("metadata", {"user_id": 5}),
        ("tools", [TOOL] * 129),
        ("stream", 1),
    ],
)
def test_a_field_out_of_its_range_is_400_and_named(field: str, value: Any) -> None:
    assert refused(**{field: value}).param == field


@pytest.mark.parametrize("field", ["n", "logprobs", "seed", "prompt", "chat_template_kwargs", "cache_salt", "vllm_xargs"])
def test_a_field_outside_the_allowlist_is_an_unknown_parameter(field: str) -> None:
    assert (refused(**{field: 1}).param, refused(**{field: 1}).code) == (field, "unknown_parameter")


@pytest.mark.parametrize("field", ["container", "mcp_servers", "context_management", "thinking", "output_config", "service_tier"])
def test_what_no_engine_does_is_refused_but_its_null_is_nothing(field: str) -> None:
    assert refused(**{field: {"type": "enabled"}}).code == "unsupported_parameter"
    assert field not in ask(**{field: None}).sent


@pytest.mark.parametrize(
    "block",
    [
        IMAGE,
        {"type": "document", "source": {"type": "url", "url": "file:///etc/passwd"}},
        {"type": "tool_result", "tool_use_id": "t", "content": [IMAGE]},
        {"type": "server_tool_use"},
        {"type": ["text"]},
        {"type": None},
        {},
        "text",
        5,
    ],
)
@pytest.mark.parametrize("where", ["messages", "system"])
def test_what_is_no_text_and_no_tool_is_refused(block: Any, where: str) -> None:
    refused(**{where: [block] if where == "system" else [{"role": "user", "content": [block]}]})


@pytest.mark.parametrize(
    "message",
    [
        {"role": "system", "content": "x"},
        {"role": "user"},
        {"role": "user", "content": None},
        {"role": "user", "content": "x", "name": "y"},
        {"content": "x"},
    ],
)
def test_a_message_of_no_known_form_is_refused(message: dict[str, Any]) -> None:
    refused(messages=[message])


@pytest.mark.parametrize(
    "tool", [{"type": "web_search_20250305", "name": "web_search"}, {"name": "a b", "input_schema": {}}, {"name": "x"}]
)
def test_a_tool_that_is_no_function_of_the_clients_is_refused(tool: dict[str, Any]) -> None:
    refused(tools=[tool])


def test_every_form_of_anthropics_reference_is_taken_and_sent_as_it_came() -> None:
    turns = [
        {"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "look_up", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "5"}]}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t"}, {"type": "text", "text": "and?"}]},
    ]
    fields = {"messages": turns, "system": [{"type": "text", "text": "be brief"}], "tools": [TOOL], "tool_choice": {"type": "any"}}
    made = ask(**fields, temperature=0.5, top_k=3, stop_sequences=["x"], stream=True, metadata={"user_id": "u"}, store=True)
    expected = {"model": "support", "max_tokens": 9, "temperature": 0.5, "top_k": 3, "stop_sequences": ["x"], "stream": True}
    assert made.sent == {**expected, **fields}


def test_it_is_recorded_unless_the_client_says_no() -> None:
    made = ask(store=None)
    assert (made.store, made.expected, made.sampling.max_tokens) == (True, 1, 9)
    assert ask(store=False).store is False


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, ""),
        ({"temperature": 0.5}, ""),
        ({"temperature": 0}, "greedy"),
        ({"top_p": 0.5}, "top_p"),
        ({"top_k": 3}, "top_k"),
        ({"tools": [TOOL]}, "grammar"),
    ],
)
def test_only_an_unfiltered_sample_is_fit_for_a_policy_gradient(fields: dict[str, Any], reason: str) -> None:
    assert ask(**fields).unfit == reason


def test_an_error_in_a_stream_has_anthropics_form() -> None:
    told = MESSAGES.fault(ApiError(502, "The engine broke off its answer.", code="engine_broken"))
    kind, data, end = told.split(b"\n", 2)
    assert (kind, end) == (b"event: error", b"\n")
    tree = json.loads(data.removeprefix(b"data: "))
    assert (tree["type"], tree["error"]["type"], tree["error"]["message"]) == ("error", "server_error", "The engine broke off its answer.")
