"""gateway.dialects.responses: what a request may hold, what comes before it, what goes on to the engine and to the client."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engines.openai.events import capture_response
from gateway.dialects.base import Ask
from gateway.dialects.responses import LONGEST_CHAIN, Responses, retrievable
from gateway.errors import ApiError
from ratchet import names
from ratchet.buffer import Store
from ratchet.config import GatewayConfig
from ratchet.types import Interaction, KeyRecord
from tests.support.dialect_refusals import refusal
from tests.support.stores import TENANT, interaction

CONFIG = GatewayConfig()
CALLER = KeyRecord("k", TENANT, ["infer"], 1.0)
ROUTE = "/v1/responses"
TOOL = {"type": "function", "name": "look_up", "parameters": {"type": "object"}, "strict": True}
IMAGE = {"type": "input_image", "image_url": "http://169.254.169.254/"}


@pytest.fixture
def dialect(empty_store: Store) -> Responses:
    return Responses(empty_store.interactions, 10_000)


def ask(dialect: Responses, **fields: Any) -> Ask:
    return dialect.check({"model": "support", "input": "hello", **fields}, CONFIG)


def refused(dialect: Responses, **fields: Any) -> ApiError:
    return refusal(dialect, {"model": "support", "input": "hello", **fields})


def said(text: str) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": [{"token": "x", "logprob": -1.0}]}
    return {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}


async def stored(store: Store, text: Any = "one", answer: str = "uno", previous: str | None = None, **fields: Any) -> str:
    """An earlier response in the store; its id."""
    ident = names.mint(names.RESPONSE_PREFIX)
    request = {"model": "support", "input": text, **({"previous_response_id": previous} if previous else {})}
    response = {"id": ident, "object": "response", "output": [{"type": "reasoning", "id": "rs_1", "summary": []}, said(answer)]}
    base: dict[str, Any] = {"id": ident, "route": ROUTE, "request": request, "response": response}
    await store.interactions.put([interaction(**(base | fields))])
    return ident


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("input", None),
        ("input", []),
        ("input", 5),
        ("input", ["hello"]),
        ("input", "x" * (2**20 + 1)),
        ("max_output_tokens", 0),
        ("temperature", 3),
        ("top_p", -1),
        ("top_logprobs", 21),
        ("include", ["code_interpreter_call.outputs"]),
        ("include", ["message.input_image.image_url"]),
        ("tools", [{"type": "web_search"}]),
        ("tools", [{"type": "mcp", "server_url": "http://x"}]),
        ("tools", [{"type": "file_search", "vector_store_ids": []}]),
        ("tools", [TOOL] * 129),
        ("tool_choice", "always"),
        ("tool_choice", {"type": "web_search"}),
        ("metadata", {"k": "v" * 513}),
        ("truncation", "middle"),
        ("stream", "yes"),
        ("previous_response_id", 5),
    ],
)
async def test_a_field_out_of_its_range_is_400_and_named(dialect: Responses, field: str, value: Any) -> None:
    assert (refused(dialect, **{field: value}).param or "").split("[")[0].split(".")[0] == field


@pytest.mark.parametrize(
    "field", ["n", "messages", "max_tokens", "request_id", "previous_input_messages", "mm_processor_kwargs", "priority", "cache_salt"]
)
async def test_a_field_outside_the_allowlist_is_an_unknown_parameter(dialect: Responses, field: str) -> None:
    error = refused(dialect, **{field: 1})
    assert (error.param, error.code) == (field, "unknown_parameter")


@pytest.mark.parametrize(
    ("field", "value"), [("background", True), ("conversation", "conv_1"), ("prompt", {"id": "pmpt_1"}), ("context_management", [])]
)
async def test_what_is_not_offered_is_refused_but_its_null_is_nothing(dialect: Responses, field: str, value: Any) -> None:
    assert (refused(dialect, **{field: value}).param, refused(dialect, **{field: value}).code) == (field, "unsupported_parameter")
    assert field not in ask(dialect, **{field: None}).sent


async def test_a_response_in_the_foreground_may_say_so(dialect: Responses) -> None:
    assert "background" not in ask(dialect, background=False).sent


@pytest.mark.parametrize(
    "item",
    [
        {"role": "user", "content": [IMAGE]},
        {"role": "user", "content": [{"type": "input_file", "file_url": "http://x"}]},
        {"role": "user", "content": [{"type": "input_audio"}]},
        {"role": "user", "content": [{"type": ["input_text"]}]},
        {"role": "user", "content": ["text"]},
        {"role": "user", "content": None},
        {"role": "user", "content": 5},
        {"role": "robot", "content": "x"},
        {"role": ["user"], "content": "x"},
        {"role": {"user": 1}, "content": "x"},
        {"content": "x"},
        {"type": "function_call_output", "call_id": "c", "output": [IMAGE]},
        {"type": "reasoning", "id": "r", "summary": [], "content": [IMAGE]},
        {"type": "reasoning", "id": "r", "summary": 5},
        {"type": "reasoning", "id": "r", "summary": [IMAGE]},
        {"type": "item_reference", "id": "msg_1"},
        {"type": "computer_call_output", "output": {"type": "computer_screenshot", "image_url": "http://x"}},
        {"type": 5},
        {"type": ["message"]},
    ],
)
async def test_an_item_that_is_no_text_and_no_function_is_refused(dialect: Responses, item: dict[str, Any]) -> None:
    assert refused(dialect, input=[{"role": "user", "content": "hi"}, item]).param == "input"


async def test_every_form_of_openais_reference_is_taken(dialect: Responses) -> None:
    items = [
        {"role": "developer", "content": "be brief"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "x"}], "content": None},
        said("hello"),
        {"type": "function_call", "call_id": "c", "name": "look_up", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "5"},
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "5"}]},
    ]
    made = ask(
        dialect,
        input=items,
        include=["message.output_text.logprobs"],
        reasoning={"effort": "low"},
        text={"format": {"type": "json_schema", "name": "x", "schema": {}}, "verbosity": "low"},
        tools=[TOOL],
        tool_choice={"type": "function", "name": "look_up"},
        top_k=3,
        stream=True,
        stream_options={"include_obfuscation": False},
    )
    assert (made.stream, made.sent["input"], made.unfit) == (True, items, "top_k")


async def test_the_engine_gets_nothing_that_is_the_gateways_own(dialect: Responses) -> None:
    made = ask(dialect, metadata={"a": "b"}, store=False, user=None, background=False, stream=True, stream_options={}, seed=5)
    assert made.sent == {"model": "support", "input": "hello", "stream": True, "seed": 5}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, ""),
        ({"text": {"format": {"type": "text"}}, "temperature": 0.5}, ""),
        ({"temperature": 0}, "greedy"),
        ({"presence_penalty": 0.5}, "penalty"),
        ({"text": {"format": {"type": "json_object"}}}, "grammar"),
        ({"tools": [TOOL]}, "grammar"),
    ],
)
def test_only_an_unfiltered_sample_is_fit_for_a_policy_gradient(dialect: Responses, fields: dict[str, Any], reason: str) -> None:
    assert ask(dialect, **fields).unfit == reason


async def test_what_came_before_is_put_in_front_oldest_first_without_log_probs_and_reasoning(
    dialect: Responses, empty_store: Store
) -> None:
    first = await stored(empty_store, "one", "uno")
    second = await stored(empty_store, [{"role": "user", "content": "two"}], "due", previous=first)
    made = await dialect.prepare(ask(dialect, input="three", previous_response_id=second), CALLER)
    told = [item["content"] if isinstance(item["content"], str) else item["content"][0]["text"] for item in made.sent["input"]]
    assert told == ["one", "uno", "two", "due", "three"]
    assert "previous_response_id" not in made.sent
    answers = [item for item in made.sent["input"] if item["role"] == "assistant"]
    assert all(part["logprobs"] is None for item in answers for part in item["content"])
    assert (made.tree["input"], made.tree["previous_response_id"]) == ("three", second)


async def test_a_function_call_goes_on_with_its_output(dialect: Responses, empty_store: Store) -> None:
    call = {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "look_up", "arguments": "{}", "status": "completed"}
    first = await stored(empty_store, response={"object": "response", "output": [call]})
    result = {"type": "function_call_output", "call_id": "c", "output": "5"}
    made = await dialect.prepare(ask(dialect, input=[result], previous_response_id=first), CALLER)
    assert made.sent["input"] == [{"role": "user", "content": "one"}, call, result]


@pytest.mark.parametrize(
    "fields",
    [
        {"tenant": "umbrella"},
        {"response": None},  # cut off, or an answer of another route
    ],
)
async def test_another_tenants_response_or_one_that_never_ended_is_not_found(
    dialect: Responses, empty_store: Store, fields: dict[str, Any]
) -> None:
    made = ask(dialect, previous_response_id=await stored(empty_store, **fields))
    await not_found(dialect, made)


@pytest.mark.parametrize("name", ["resp_" + "0" * 32, "../../etc/passwd", "chatcmpl-" + "0" * 32, "", "x" * 500])
async def test_a_response_that_never_was_is_not_found(dialect: Responses, name: str) -> None:
    await not_found(dialect, ask(dialect, previous_response_id=name))


async def test_a_deleted_link_breaks_the_chain(dialect: Responses, empty_store: Store) -> None:
    first = await stored(empty_store)
    second = await stored(empty_store, previous=first)
    assert await empty_store.interactions.delete(first, TENANT, route=ROUTE)
    await not_found(dialect, ask(dialect, previous_response_id=second))


async def not_found(dialect: Responses, made: Ask) -> None:
    with pytest.raises(ApiError) as error:
        await dialect.prepare(made, CALLER)
    assert (error.value.status, error.value.param) == (400, "previous_response_id")
    assert error.value.code == "previous_response_not_found"


async def test_a_chain_is_bounded_in_its_links_and_in_its_bytes(dialect: Responses, empty_store: Store) -> None:
    last: str | None = None
    for _ in range(LONGEST_CHAIN):
        last = await stored(empty_store, "", "", previous=last)
    roomy = Responses(empty_store.interactions, 2**20)
    assert len((await roomy.prepare(ask(roomy, previous_response_id=last), CALLER)).sent["input"]) == 2 * LONGEST_CHAIN + 1
    longer = await stored(empty_store, previous=last)
    for chosen, previous in ((roomy, longer), (dialect, last), (dialect, await stored(empty_store, "x" * 10_000))):
        with pytest.raises(ApiError) as error:
            await chosen.prepare(ask(chosen, previous_response_id=previous), CALLER)
        assert (error.value.status, error.value.param) == (400, "previous_response_id")


async def test_the_client_sees_its_own_id_model_metadata_and_chain(dialect: Responses) -> None:
    made = ask(dialect, metadata={"a": "b"}, previous_response_id="resp_1")
    told = json.dumps({"id": "theirs", "object": "response", "model": "adapter", "status": "completed", "output": [said("hi")]})
    seen, captured = capture_response(told.encode(), made.wants, "resp_x", "support@3")
    tree = json.loads(seen)
    assert (tree["id"], tree["model"], tree["metadata"], tree["previous_response_id"]) == ("resp_x", "support@3", {"a": "b"}, "resp_1")
    assert (tree["store"], tree["background"], captured.response) == (True, False, tree)


def test_an_error_in_a_stream_is_an_error_event(empty_store: Store) -> None:
    told = Responses(empty_store.interactions, 1).fault(ApiError(502, "It broke.", code="engine_broken"))
    assert told.startswith(b"event: error\ndata: {") and told.endswith(b"\n\n")
    tree = json.loads(told.split(b"data: ")[1])
    assert (tree["type"], tree["code"], tree["message"]) == ("error", "engine_broken", "It broke.")


def test_only_a_whole_response_is_retrieved() -> None:
    found = interaction(route=ROUTE, response={"id": "resp_1"})
    cases: list[Interaction | None] = [None, interaction(), interaction(route=ROUTE), found]
    assert [retrievable(case) for case in cases] == [None, None, None, {"id": "resp_1"}]


@pytest.mark.parametrize("status", ["truncated", "cancelled"])
async def test_what_did_not_come_whole_is_not_gone_on_from(dialect: Responses, empty_store: Store, status: str) -> None:
    previous = await stored(empty_store, status=status)
    with pytest.raises(ApiError) as error:
        await dialect.prepare(ask(dialect, previous_response_id=previous), CALLER)
    assert error.value.code == "previous_response_not_found"
