"""gateway.dialects.chat: what a chat request may hold, what goes on to the engine, what may be learned from."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engines import Wants
from gateway.dialects.base import episode
from gateway.dialects.chat import Chat
from gateway.errors import ApiError
from ratchet.config import GatewayConfig
from tests.support.dialect_refusals import refusal

CHAT, CONFIG = Chat(), GatewayConfig()
HELLO = [{"role": "user", "content": "hello"}]
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "support", "messages": HELLO, **fields}


def refused(**fields: Any) -> ApiError:
    return refusal(CHAT, body(**fields))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", 2.1),
        ("temperature", -0.1),
        ("temperature", "1"),
        ("top_p", 1.01),
        ("top_p", -0.1),
        ("frequency_penalty", 2.5),
        ("presence_penalty", -2.5),
        ("n", 0),
        ("n", 65),
        ("n", 10**9),
        ("n", 1.5),
        ("n", True),
        ("max_tokens", 0),
        ("max_tokens", 10**12),
        ("max_completion_tokens", -1),
        ("logprobs", 1),
        ("stop", ["a", "b", "c", "d", "e"]),
        ("stop", 5),
        ("metadata", {f"k{i}": "v" for i in range(17)}),
        ("metadata", {"k" * 65: "v"}),
        ("metadata", {"k": "v" * 513}),
        ("metadata", {"k": 1}),
        ("messages", []),
        ("messages", "hello"),
        ("model", ""),
        ("model", 7),
        ("model", "m" * 513),
        ("logit_bias", {"5": 101}),
        ("logit_bias", {"word": 1}),
        ("tools", [TOOL] * 129),
        ("top_k", -2),
        ("min_p", 2),
        ("service_tier", "fastest"),
        ("reasoning_effort", "a lot"),
        ("user", 5),
        ("stream", "yes"),
        ("seed", 1.5),
    ],
)
def test_a_field_out_of_its_range_is_400_and_named(field: str, value: Any) -> None:
    error = refused(**{field: value})
    assert error.param == field
    assert json.loads(error.body)["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "field",
    ["chat_template", "prompt_embeds", "priority", "mm_processor_kwargs", "echo", "vllm_xargs", "api_base", "foo"],
)
def test_a_field_outside_the_allowlist_is_an_unknown_parameter(field: str) -> None:
    error = refused(**{field: 1})
    assert (error.code, error.param) == ("unknown_parameter", field)


@pytest.mark.parametrize("field", ["audio", "moderation"])
def test_what_no_engine_does_is_refused_but_its_null_is_nothing(field: str) -> None:
    assert refused(**{field: {}}).code == "unsupported_parameter"
    assert CHAT.check(body(**{field: None}), CONFIG).model == "support"


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}},
        {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
        {"type": "file", "file": {"file_id": "x"}},
        {"type": "video_url", "video_url": {"url": "http://127.0.0.1/"}},
        {"type": "audio_url", "audio_url": {"url": "http://127.0.0.1/"}},
        {"type": "text", "text": "a", "image_url": "http://127.0.0.1/"},
    ],
)
def test_a_part_that_is_no_text_is_refused(part: dict[str, Any]) -> None:
    error = refused(messages=[{"role": "user", "content": [part]}])
    assert error.param is not None
    assert error.param.startswith("messages[0].content[0]")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice"),
    ],
)
def test_a_field_that_needs_another_says_so(fields: dict[str, Any], param: str) -> None:
    assert refused(**fields).param == param


@pytest.mark.parametrize(
    "message", [{"content": "x"}, {"role": "wizard", "content": "x"}, {"role": "user"}, {"role": "user", "content": 5}]
)
def test_a_message_of_no_known_form_is_refused(message: dict[str, Any]) -> None:
    error = refused(messages=[message])
    assert error.param is not None
    assert error.param.startswith("messages[0]")


def test_a_missing_field_is_told_from_a_wrong_one() -> None:
    with pytest.raises(ApiError) as error:
        CHAT.check({"model": "support"}, CONFIG)
    assert (error.value.code, error.value.param) == ("missing_required_parameter", "messages")


def test_every_form_of_openais_reference_is_taken() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
    messages = [
        {"role": "developer", "content": "a"},
        {"role": "system", "content": [{"type": "text", "text": "b"}]},
        {"role": "user", "content": "c", "name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None, "annotations": None, "audio": None},
        {"role": "tool", "content": "d", "tool_call_id": "c1"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "e"}]},
    ]
    everything = body(
        frequency_penalty=1,
        function_call="auto",
        functions=[{"name": "f"}],
        logit_bias={"5": -100},
        logprobs=True,
        max_completion_tokens=5,
        max_tokens=5,
        metadata={"episode_id": "e1"},
        modalities=["text"],
        n=2,
        parallel_tool_calls=False,
        prediction={"type": "content", "content": "x"},
        presence_penalty=-1,
        prompt_cache_key="k",
        prompt_cache_retention="24h",
        reasoning_effort="low",
        response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": {}, "strict": True}},
        safety_identifier="s",
        seed=-1,
        service_tier="auto",
        stop=["x"],
        store=True,
        stream=True,
        stream_options={"include_usage": True},
        temperature=0,
        tool_choice={"type": "function", "function": {"name": "look_up"}},
        tools=[TOOL],
        top_logprobs=20,
        top_p=0,
        user="u",
        verbosity="low",
        web_search_options={},
    )
    assert CHAT.check({**everything, "messages": messages}, CONFIG).expected == 2
    assert CHAT.check(body(**dict.fromkeys(everything.keys() - {"model", "messages"})), CONFIG).expected == 1


def test_the_engine_gets_the_clients_fields_but_not_the_gateways_own() -> None:
    tree = body(temperature=0.5, top_k=None, metadata={"a": "b"}, store=True, user="u")
    made = CHAT.check(tree, CONFIG)
    assert made.sent == body(temperature=0.5, user="u")
    assert made.tree is tree


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, ""),
        ({"temperature": 0.7, "max_tokens": 5, "stop": ["x"], "seed": 1, "n": 4}, ""),
        ({"top_p": 1, "top_k": -1, "min_p": 0, "repetition_penalty": 1.0, "response_format": {"type": "text"}}, ""),
        ({"tools": [TOOL], "tool_choice": "auto"}, ""),
        ({"tools": [TOOL], "tool_choice": "none", "parallel_tool_calls": False}, ""),
        ({"parallel_tool_calls": False}, ""),
        ({"temperature": 0}, "greedy"),
        ({"top_p": 0.9}, "top_p"),
        ({"top_k": 5}, "top_k"),
        ({"min_p": 0.1}, "min_p"),
        ({"frequency_penalty": 0.1}, "penalty"),
        ({"presence_penalty": -0.1}, "penalty"),
        ({"repetition_penalty": 1.1}, "penalty"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"allowed_token_ids": [1]}, "logit_bias"),
        ({"response_format": {"type": "json_object"}}, "grammar"),
        ({"structured_outputs": {"regex": "a+"}}, "grammar"),
        ({"tools": [TOOL], "tool_choice": "required"}, "grammar"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "look_up"}}}, "grammar"),
        ({"tools": [{"type": "function", "function": {"name": "f", "strict": True}}]}, "grammar"),
        ({"tools": [TOOL], "parallel_tool_calls": False}, "grammar"),
        ({"tools": [TOOL], "tool_choice": "auto", "parallel_tool_calls": False}, "grammar"),
        ({"min_tokens": 3}, "min_tokens"),
        ({"bad_words": ["x"]}, "bad_words"),
    ],
)
def test_only_an_unfiltered_sample_is_fit_for_a_policy_gradient(fields: dict[str, Any], reason: str) -> None:
    assert CHAT.check(body(**fields), CONFIG).unfit == reason


def test_a_templates_arguments_are_taken_only_if_they_are_allowed() -> None:
    asked = body(chat_template_kwargs={"enable_thinking": False})
    assert CHAT.check(asked, GatewayConfig(template_kwargs=["enable_thinking"])).sent["chat_template_kwargs"] == {"enable_thinking": False}
    assert refused(chat_template_kwargs={"enable_thinking": False}).param == "chat_template_kwargs"


def test_the_client_sees_what_it_asked_for() -> None:
    assert CHAT.check(body(), CONFIG).wants == Wants(usage=True)
    assert CHAT.check(body(stream=True), CONFIG).wants == Wants()
    asked = body(stream=True, stream_options={"include_usage": True}, logprobs=True, return_token_ids=True)
    assert CHAT.check(asked, CONFIG).wants == Wants(logprobs=True, token_ids=True, usage=True)


def test_the_bodys_episode_counts_before_the_headers() -> None:
    inside = CHAT.check(body(metadata={"episode_id": "one"}), CONFIG)
    assert episode(inside, "two") == "one"
    assert episode(CHAT.check(body(), CONFIG), "two") == "two"
    assert episode(CHAT.check(body(), CONFIG), None) is None


@pytest.mark.parametrize("name", ["", "a b", "../x", "e" * 129, "chatcmpl-" + "0" * 32])
def test_a_malformed_episode_is_400(name: str) -> None:
    with pytest.raises(ApiError) as error:
        episode(CHAT.check(body(metadata={"episode_id": name}), CONFIG), None)
    assert error.value.param == "metadata.episode_id"
