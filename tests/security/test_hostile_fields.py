"""Row 15 of reliability.md: what would make an engine do more than answer is bounded or refused before it gets there."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.gateway_process import POLICY, Bench

pytestmark = pytest.mark.asyncio(loop_scope="module")
URL = "http://169.254.169.254/latest/meta-data"
INT32 = 2**31 - 1
NUMBERS: list[dict[str, Any]] = [
    {field: value}
    for field, values in {
        "n": (65, 10**9, 1e9, 2**31, -1, 0, "1", True),
        "max_tokens": (INT32 + 1, 10**18, 1e18, 0, -1, "16", True),
        "max_completion_tokens": (INT32 + 1, 10**18, 0, -1),
        "min_tokens": (INT32 + 1, 10**18, -1),
        "top_k": (INT32 + 1, -2),
        "top_logprobs": (21, 10**9, -1),
        "temperature": (2.1, 1e308, -0.1),
        "repetition_penalty": (0, -1, 1e9),
        "logit_bias": ({str(10**12): 1}, {"1": 1e9}, {"-1": 1}),
        "allowed_token_ids": (list(range(1025)), [-1], [INT32 + 1]),
        "stop_token_ids": (list(range(1025)), [INT32 + 1]),
        "bad_words": (["x"] * 129, ["x" * 513]),
        "stop": (["x"] * 5, "x" * (2**20 + 1)),
        "tools": ([{"type": "function", "function": {"name": "f"}}] * 129,),
        "metadata": ({str(i): "x" for i in range(17)},),
        "model": ("x" * 513, ""),
    }.items()
    for value in values
]
FIELDS: dict[str, Any] = {
    "chat_template": "{{ messages }}",
    "chat_template_kwargs": {"enable_thinking": True},
    "prompt_embeds": "gASVAAAA",
    "documents": [{"text": URL}],
    "mm_processor_kwargs": {"num_crops": 10**9},
    "media_io_kwargs": {"video": {"num_frames": 10**9}},
    "kv_transfer_params": {"remote_host": URL},
    "vllm_xargs": {"a": 1},
    "lora_request": {"lora_path": "/etc"},
    "lora_path": "/etc",
    "priority": -(10**9),
    "request_id": "mine",
    "cache_salt": "x",
    "add_generation_prompt": False,
    "continue_final_message": True,
    "echo": True,
    "best_of": 10**6,
    "use_beam_search": True,
    "prompt_logprobs": 10**9,
    "truncate_prompt_tokens": -1,
    "logits_processors": ["os.system"],
    "guided_json": {},
    "guided_grammar": "root ::= root",
    "api_base": URL,
    "base_url": URL,
    "extra_body": {"api_base": URL},
    "extra_headers": {"host": URL},
    "custom_llm_provider": "x",
    "fallbacks": [URL],
    "mock_response": "x",
    "audio": {"voice": "x", "format": "wav"},
    "__proto__": {},
}
PARTS: list[dict[str, Any]] = [
    {"type": "image_url", "image_url": {"url": URL}},
    {"type": "image_url", "image_url": URL},
    {"type": "image_embeds", "image_embeds": "gASVAAAA"},
    {"type": "image_pil", "image_pil": "x"},
    {"type": "video_url", "video_url": {"url": "file:///etc/passwd"}},
    {"type": "audio_url", "audio_url": {"url": URL}},
    {"type": "input_audio", "input_audio": {"data": "x", "format": "wav"}},
    {"type": "input_image", "image_url": URL},
    {"type": "file", "file": {"file_id": "../x"}},
    {"type": "text", "text": "x", "image_url": {"url": URL}},
]

OTHERS: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": "x"},
    "/v1/responses": {"input": "x"},
    "/v1/messages": {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1},
    "/v1/embeddings": {"input": "x"},
    "/v1/rerank": {"query": "x", "documents": ["x"]},
    "/v1/score": {"text_1": "x", "text_2": "x"},
    "/tokenize": {"prompt": "x"},
    "/detokenize": {"tokens": [1]},
}
"""A sound body for each other route to an engine."""
THEIRS = {
    "/v1/completions": {"echo"},
    "/v1/embeddings": {"truncate_prompt_tokens"},
    "/v1/rerank": {"documents", "truncate_prompt_tokens"},
    "/v1/score": {"documents", "truncate_prompt_tokens"},
    "/tokenize": {"add_generation_prompt", "continue_final_message"},
}
"""Of FIELDS, what a route does know."""
SOURCES: list[dict[str, Any]] = [
    {"type": "image", "source": {"type": "url", "url": URL}},
    {"type": "document", "source": {"type": "url", "url": URL}},
    {"type": "input_image", "image_url": URL},
    {"type": "input_file", "file_url": URL},
    {"type": "item_reference", "id": URL},
    *PARTS[:-1],
]


async def seen(made: Bench) -> list[dict[str, Any]]:
    """The bodies the engine was sent, but for the gateway's own probes."""
    bodies = (await made.fakes["fake-0"].state())["requests"]
    return [body for body in bodies if body.get("temperature") != 0]


async def refused(made: Bench, **fields: Any) -> None:
    before = len(await seen(made))
    for stream in (False, True):
        answer = await made.chat(**{"stream": stream, **fields})
        assert answer.status_code == 400, (fields, answer.text)
        assert answer.json()["error"]["type"] == "invalid_request_error"
    assert len(await seen(made)) == before


@pytest.mark.parametrize("fields", NUMBERS, ids=lambda fields: str(fields)[:40])
async def test_a_number_or_a_list_past_its_bound_is_400_and_no_engine_sees_it(shared: Bench, fields: dict[str, Any]) -> None:
    await refused(shared, **fields)


@pytest.mark.parametrize("field", FIELDS)
async def test_a_field_off_the_list_is_400_and_no_engine_sees_it(shared: Bench, field: str) -> None:
    await refused(shared, **{field: FIELDS[field]})


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part["type"])
@pytest.mark.parametrize("role", ["user", "system", "assistant", "tool"])
async def test_a_part_that_is_no_text_is_400_and_no_engine_sees_it(shared: Bench, part: dict[str, Any], role: str) -> None:
    message = {"role": role, "content": [part], **({"tool_call_id": "x"} if role == "tool" else {})}
    await refused(shared, messages=[{"role": "user", "content": "x"}, message])


async def test_what_the_engine_saw_of_a_full_request_is_on_the_list(shared: Bench) -> None:
    answer = await shared.chat("say:mark", n=2, max_tokens=INT32, metadata={"a": "b"}, user="u")
    assert answer.status_code == 200
    asked = (await seen(shared))[-1]
    assert asked["max_tokens"] == INT32
    assert not asked.keys() & FIELDS.keys()
    assert not asked.keys() & {"metadata", "store"}


@pytest.mark.parametrize("path", OTHERS)
async def test_the_other_routes_refuse_the_same_fields_and_media(shared: Bench, path: str) -> None:
    before = len(await seen(shared))
    hostile = [{field: value} for field, value in FIELDS.items() if field not in THEIRS.get(path, ())]
    for key in ("input", "messages", "system", "prompt", "query", "documents", "text_1", "tools"):
        told: list[Any] = SOURCES if key != "tools" else [{"type": "mcp", "server_url": URL}, {"type": "web_search", "url": URL}]
        hostile += [{key: [source]} for source in told]
        hostile += [{key: [{"role": "user", "content": [source]}]} for source in told]
    for fields in hostile:
        answer = await shared.call("POST", path, {"model": POLICY, **OTHERS[path], **fields})
        assert answer.status_code == 400, (fields, answer.text)
    assert len(await seen(shared)) == before
