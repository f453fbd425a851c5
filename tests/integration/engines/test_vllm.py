"""engines.vllm.wire: what vLLM is asked for, and how its answers (tests/support/recorded) are read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from engines import Captured, Wants, connect
from engines.routes import CHAT, MESSAGES, POOLING, RESPONSES, TEXT, TOKENS
from engines.types import ClientFault, NoAdapter, NoRoute
from engines.vllm.capture import ChoicesCapture, capture_whole
from engines.vllm.wire import COLDEST, VllmWire
from ratchet.errors import EngineBroken
from ratchet.types import EngineRecord, Sampling
from tests.support.vllm_samples import payloads, whole

ID = "cmpl-" + "cd" * 16
WIRE = VllmWire()
NEUTRAL = {"temperature": 1.0, "top_p": 1.0}


def sent(route: str, fields: dict[str, Any], *, record: bool = True) -> dict[str, Any]:
    """The body that the engine gets."""
    request = WIRE.request(route, fields, model="support@7", public_id=ID, record=record)
    assert (request.path, request.headers) == (route, {"x-request-id": "cd" * 16})
    return dict(json.loads(request.body))


@pytest.mark.parametrize(
    ("body", "asked"),
    [
        ({}, {"return_token_ids": True, "logprobs": 0}),
        ({"logprobs": 3}, {"return_token_ids": True, "logprobs": 3}),
        ({"stream": True}, {"return_token_ids": True, "logprobs": 0, "stream_options": {"include_usage": True}}),
        ({"echo": True, "logprobs": 1}, {}),
        ({"echo": True, "stream": True}, {"stream_options": {"include_usage": True}}),
    ],
)
def test_a_text_is_asked_for_ids_unless_it_is_to_repeat_its_prompt(body: dict[str, Any], asked: dict[str, Any]) -> None:
    unrecorded = sent(TEXT, body, record=False)
    assert sent(TEXT, body) == unrecorded | asked


def test_a_chat_is_asked_for_ids_log_probs_and_usage() -> None:
    body = {"stream": True, "stream_options": {"include_obfuscation": False}}
    asked = sent(CHAT, body)
    assert (asked["return_token_ids"], asked["logprobs"]) == (True, True)
    assert asked["stream_options"] == {"include_obfuscation": False, "include_usage": True}
    assert body["stream_options"] == {"include_obfuscation": False}
    assert sent(CHAT, {"top_logprobs": 3, "logprobs": True}, record=False).keys() == sent(CHAT, {}, record=False).keys() | {
        "top_logprobs",
        "logprobs",
    }


@pytest.mark.parametrize("route", [RESPONSES, MESSAGES, *POOLING, *TOKENS])
def test_routes_that_give_no_ids_are_asked_for_none(route: str) -> None:
    assert route not in WIRE.exact_routes
    assert sent(route, {"stream": True}) == sent(route, {"stream": True}, record=False)


@pytest.mark.parametrize("route", [CHAT, TEXT])
def test_neutral_sampling_is_sent_where_the_request_is_silent(route: str) -> None:
    neutral = {**NEUTRAL, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
    assert sent(route, {}, record=False) == {**neutral, "model": "support@7"}
    assert sent(route, {"temperature": 0.3, "top_k": 5}, record=False) == {**neutral, "temperature": 0.3, "top_k": 5, "model": "support@7"}


def test_the_engines_own_name_takes_the_place_of_the_clients() -> None:
    assert sent(MESSAGES, {"model": "support"}) == {**NEUTRAL, "model": "support@7"}
    assert sent(RESPONSES, {"model": "support"}) == {**NEUTRAL, "model": "support@7", "request_id": ID}
    assert sent("/tokenize", {"model": "support", "prompt": "a"}) == {"model": "support@7", "prompt": "a"}


@pytest.mark.parametrize(
    ("temperature", "launched", "reason"),
    [
        (1.0, False, ""),
        (0.7, True, ""),
        (0.7, False, "logprobs_mode"),  # they may be those of T = 1
        (COLDEST, True, ""),
        (COLDEST / 2, True, "temperature"),
        (0.0, True, ""),  # greedy, as the request itself shows
    ],
)
def test_log_probs_are_those_of_the_sampling_distribution_or_the_reason_is_given(temperature: float, launched: bool, reason: str) -> None:
    assert WIRE.samples_truly(Sampling(temperature=temperature), launched=launched) == reason


def test_an_error_has_its_meaning() -> None:
    not_loaded = b'{"error": {"message": "The model `support@7` does not exist.", "type": "NotFoundError", "code": 404}}'
    assert WIRE.meaning(404, {}, not_loaded, "support@7") == NoAdapter()
    assert WIRE.meaning(404, {}, b'{"detail": "Not Found"}', "support@7") == NoRoute()
    assert WIRE.meaning(400, {}, b'{"error": {"message": "no", "param": "n"}}', "support@7") == ClientFault("no", "n")


def test_asked_for_ids_vllm_leaves_out_the_prompt_that_it_should_repeat() -> None:
    choice = json.loads(whole("echo_with_ids.json"))["choices"][0]
    assert choice["text"] == "".join(choice["logprobs"]["tokens"][2:])
    assert choice["prompt_logprobs"] is not None  # nor would the client have seen these


def texts(wants: Wants) -> list[tuple[list[dict[str, Any]], Captured]]:
    """The recorded texts, streamed and whole: what the client sees, and what is kept."""
    capture = ChoicesCapture(wants, ID, "support@3")
    seen = [out for event in payloads("completion.sse") if (out := capture.event(event)) is not None]
    assert seen.pop() == b"[DONE]"
    body, kept = capture_whole(whole("text.json"), wants, ID, "support@3")
    return [([json.loads(chunk) for chunk in seen], capture.captured()), ([json.loads(body)], kept)]


def test_texts_are_kept_exactly_each_choice_by_itself() -> None:
    for seen, kept in texts(Wants()):
        assert kept.exact and kept.finished
        assert [choice.index for choice in kept.choices] == sorted({part["index"] for chunk in seen for part in chunk["choices"]})
        for choice in kept.choices:
            said = [part["text"] for chunk in seen for part in chunk["choices"] if part["index"] == choice.index]
            assert choice.message == {"role": "assistant", "content": "".join(said)}
            assert len(choice.token_ids) == len(choice.logprobs) > 0


def test_of_a_text_the_client_sees_neither_ids_nor_log_probs_that_it_did_not_ask_for() -> None:
    for seen, _ in texts(Wants()):
        assert {(chunk["id"], chunk["model"]) for chunk in seen} == {(ID, "support@3")}
        parts = [part for chunk in seen for part in chunk["choices"]]
        assert parts
        assert all(part["logprobs"] is None and not part.keys() & {"token_ids", "prompt_token_ids"} for part in parts)


def test_a_client_that_asked_sees_all_of_a_text() -> None:
    wants = Wants(logprobs=True, token_ids=True, usage=True)
    streamed, entire = (seen for seen, _ in texts(wants))
    for seen, sent in ((streamed, payloads("completion.sse")[:-1]), (entire, [whole("text.json")])):
        assert seen == [json.loads(old) | {"id": ID, "model": "support@3"} for old in sent]


@pytest.mark.parametrize(
    "choices",
    [
        '{"index":0,"token_ids":[1,2],"logprobs":{"token_logprobs":[-1.0]}}',
        '{"index":0,"token_ids":[1],"logprobs":{"token_logprobs":[-9999.0]}}',
        '{"index":0,"token_ids":[1],"logprobs":null}',
        "",
    ],
)
async def test_samples_that_do_not_pair_up_are_broken(choices: str) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=f'{{"choices":[{choices}]}}')

    app = web.Application()
    app.router.add_post("/v1/completions", answer)
    async with TestServer(app) as server:
        engine = connect(EngineRecord("odd", "vllm", "m", str(server.make_url("")), "m"))
        with pytest.raises(EngineBroken, match="pair up"):
            await engine.generate("m", [1], max_tokens=2)
        await engine.close()
