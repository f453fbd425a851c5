"""What the generating routes share, over real HTTP: ids, headers, records, stream ends, faults."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ratchet import names
from tests.support.gateway_process import POLICY, Bench, bench, recorded
from tests.support.generating_routes import CHAT, FORMS, MESSAGES, RESPONSES, TEXT, Form, payloads

pytestmark = pytest.mark.asyncio(loop_scope="session")
HELLO = "héllo 🙂"
LONG = "x" * 200
EACH = pytest.mark.parametrize("form", FORMS.values(), ids=lambda form: form.path)


async def send(made: Bench, form: Form, text: str = HELLO, *, key: str = "client", **fields: Any) -> httpx.Response:
    return await made.call("POST", form.path, form.body(text, **fields), key=key)


@EACH
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_an_answer_is_recorded_under_the_id_that_its_client_sees(shared: Bench, form: Form, stream: bool) -> None:
    answer = await send(shared, form, stream=stream, metadata={"mark": "x"})
    assert answer.status_code == 200, answer.text
    public_id = form.ident(answer.text) if stream else answer.json()["id"]
    kept = await shared.store.interactions.get(public_id, "acme")
    assert kept is not None, "the stream's last event came before the record"
    assert names.RESPONSE_ID.fullmatch(public_id) and public_id.startswith(form.prefix)
    assert (form.told(answer.text) if stream else form.said(answer.json())) == HELLO == kept.choices[0].message["content"]
    assert (kept.route, kept.status, kept.policy, kept.version, kept.model) == (form.path, "complete", POLICY, 0, f"{POLICY}@0")
    assert (kept.metadata, kept.key_id, kept.choices[0].finish_reason) == ({"mark": "x"}, "client", "stop")
    assert kept.untrainable == ("" if form.trainable else "no_ids")
    assert bool(kept.choices[0].token_ids) is bool(kept.prompt_ids) is form.trainable
    assert len(kept.choices[0].token_ids) == len(kept.choices[0].logprobs)
    assert kept.usage["total_tokens"] == kept.usage["prompt_tokens"] + kept.usage["completion_tokens"]
    assert kept.request["model"] == POLICY and kept.request.get("stream", False) is stream
    assert (answer.headers["x-ratchet-policy"], answer.headers["x-ratchet-engine"]) == (f"{POLICY}@0", "fake-0")
    assert "x-ratchet-recorded" not in answer.headers


@EACH
async def test_why_an_answer_is_not_learned_from_is_counted(shared: Bench, form: Form) -> None:
    reason = "greedy" if form.trainable else "no_ids"
    before = await shared.metric("ratchet_untrainable_total", reason=reason)
    await send(shared, form, temperature=0)
    assert await shared.metric("ratchet_untrainable_total", reason=reason) == before + 1


@EACH
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_the_client_sees_no_name_of_the_engines_and_nothing_asked_for_the_recorder(shared: Bench, form: Form, stream: bool) -> None:
    text = (await send(shared, form, stream=stream)).text
    assert "token_ids" not in text
    assert '"logprob":' not in text and '"token_logprobs":' not in text
    assert f'"{POLICY}@0"' in text and '"smollm2"' not in text
    if stream:
        ids = {found for payload in payloads(text) if (found := _named(payload)) is not None}
        assert len(ids) == 1
        assert text.rstrip().endswith(form.last.rstrip()) or form.last in text.split("\n\n")[-2]
        assert ('"usage"' in text) is not form.trainable


def _named(payload: str) -> str | None:
    tree = json.loads(payload) if payload != "[DONE]" else {}
    found = tree.get("id") or (tree.get("response") or tree.get("message") or {}).get("id")
    return str(found) if found else None


@EACH
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_opting_out_records_nothing_and_asks_the_engine_for_no_more(shared: Bench, form: Form, stream: bool) -> None:
    count = await shared.store.interactions.count()
    answer = await send(shared, form, stream=stream, store=False)
    assert (form.told(answer.text) if stream else form.said(answer.json())) == HELLO
    assert await shared.store.interactions.count() == count
    asked = (await shared.fakes["fake-0"].state())["requests"][-1]
    assert not asked.keys() & {"store", "metadata", "return_token_ids", "logprobs", "stream_options"}


@EACH
async def test_feedback_finds_an_answer_of_any_route(shared: Bench, form: Form) -> None:
    target = (await send(shared, form)).json()["id"]
    told = await shared.call("POST", "/v1/feedback", {"target": target, "value": 0.5})
    assert told.status_code == 202
    assert (await shared.store.feedback.record(told.json()["id"]) or {})["target"] == target
    assert (await shared.call("POST", "/v1/feedback", {"target": target, "value": 0.5}, key="other")).status_code == 404
    assert (await shared.call("POST", "/v1/feedback", {"target": target, "choice": 1, "value": 0.5})).status_code == 400


@EACH
async def test_an_answer_is_its_own_routes_only(shared: Bench, form: Form) -> None:
    target = (await send(shared, form)).json()["id"]
    for path in (CHAT, RESPONSES):
        found = await shared.call("GET", f"{path}/{target}")
        assert found.status_code == (200 if path == form.path else 404)
        assert form.path == path or (await shared.call("DELETE", f"{path}/{target}")).status_code == 404


@EACH
@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"model": "nobody"}, 404, "model_not_found"),
        ({"unheard": 1}, 400, "unknown_parameter"),
        ({"temperature": -1}, 400, "invalid_value"),
        ({"metadata": {"episode_id": "../x"}}, 400, "invalid_value"),
    ],
)
async def test_a_refusal_has_openais_shape_on_every_route(
    shared: Bench, form: Form, fields: dict[str, Any], status: int, code: str
) -> None:
    before = len((await shared.fakes["fake-0"].state())["requests"])
    for stream in (False, True):
        answer = await send(shared, form, stream=stream, **fields)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert len((await shared.fakes["fake-0"].state())["requests"]) == before


async def test_the_engines_own_refusal_is_told_in_openais_shape(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        await made.fakes["fake-0"].faults(refuse=422)
        for form in FORMS.values():
            answer = await send(made, form)
            assert (answer.status_code, answer.json()["error"]["message"]) == (422, "refused, as asked")
            assert answer.json()["error"]["code"] == "engine_refused"


async def test_a_stream_whose_engine_dies_ends_in_its_routes_error_and_not_in_its_last_event(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        for form in FORMS.values():
            await made.fakes["fake-0"].faults()
            await made.healthy("fake-0")
            await made.fakes["fake-0"].faults(die_after=6, times=1)
            answer = await send(made, form, LONG, stream=True)
            assert (answer.status_code, form.last in answer.text) == (200, False), answer.text
            end = answer.text.rstrip("\n").split("\n\n")[-1]
            assert end.startswith("event: error\n") is not form.trainable
            tree = json.loads(payloads(end)[0])
            assert tree["error"]["code"] == "engine_broken"
            assert form.trainable or (tree["type"], tree["code"]) == ("error", "engine_broken")
            kept = await recorded(made, form.ident(answer.text))
            assert (kept.status, kept.untrainable, kept.choices[0].message["content"]) == ("truncated", "truncated", form.told(answer.text))


async def test_a_streams_last_event_waits_until_the_answer_is_durable(tmp_path: Path) -> None:
    async with bench(tmp_path, outbox={"wait_ms": 20_000}) as made:
        for form in FORMS.values():
            await send(made, form)  # the key is known from here on
            made.server.process.send_signal(signal.SIGSTOP)
            body = form.body(HELLO, stream=True)
            headers = {"authorization": "Bearer rk-client"}
            async with made.http.stream("POST", made.url + form.path, json=body, headers=headers) as answer:
                pieces, text = answer.aiter_text(), ""
                while form.before not in text:
                    text += await anext(pieces)
                rest = asyncio.create_task(_all(pieces))
                done, _ = await asyncio.wait({rest}, timeout=0.2)
                assert not done and form.last not in text
                made.server.process.send_signal(signal.SIGCONT)
                text += await rest
            assert form.last in text and form.told(text) == HELLO
            assert await made.store.interactions.get(form.ident(text), "acme") is not None


async def _all(pieces: AsyncIterator[str]) -> str:
    return "".join([piece async for piece in pieces])


async def test_a_silent_stream_is_kept_alive_by_comments(tmp_path: Path) -> None:
    async with bench(tmp_path, start=False) as made:
        made.module = "tests.support.gateway_with_short_waits"
        await made.start()
        await made.fakes["fake-0"].faults(hang_after=6)
        for form in FORMS.values():
            body, headers = form.body(LONG, stream=True), {"authorization": "Bearer rk-client"}
            async with made.http.stream("POST", made.url + form.path, json=body, headers=headers) as answer:
                text = ""
                async for piece in answer.aiter_text():
                    text += piece
                    if text.count(": keep-alive\n\n") == 2:
                        break
            assert form.told(text) and form.last not in text


async def test_a_route_that_one_engine_lacks_is_asked_of_the_other_and_none_is_400(tmp_path: Path) -> None:
    async with bench(tmp_path, engines=2, routing={"strategy": "round_robin"}) as made:
        await made.healthy("fake-0", "fake-1")
        await made.fakes["fake-0"].faults(lacks=[TEXT, RESPONSES, MESSAGES])
        for form in (FORMS[TEXT], FORMS[RESPONSES], FORMS[MESSAGES]):
            answers = [await send(made, form, stream=i % 2 == 0) for i in range(4)]
            assert {(answer.status_code, answer.headers["x-ratchet-engine"]) for answer in answers} == {(200, "fake-1")}
        assert (await made.engine("fake-0"))["breaker"] == "closed"
        assert {(await made.chat()).headers["x-ratchet-engine"] for _ in range(4)} == {"fake-0", "fake-1"}
        for fake in made.fakes.values():
            await fake.faults(lacks=["/v1/rerank"])
        refused = await made.call("POST", "/v1/rerank", {"model": POLICY, "query": "x", "documents": ["x"]})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "unsupported_route")
