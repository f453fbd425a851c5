"""`POST /v1/chat/completions` over real HTTP, with the unmodified SDK and by hand."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from tests.support.gateway_process import BASE, POLICY, Bench, is_public_id
from tests.support.raw_http import Wire

pytestmark = pytest.mark.asyncio(loop_scope="session")
SAY = [{"role": "user", "content": "say:héllo 🙂"}]


async def test_a_whole_answer_through_the_sdk_is_recorded_and_read_back(shared: Bench) -> None:
    sdk = shared.sdk()
    answer = await sdk.chat.completions.create(model=POLICY, messages=SAY, metadata={"user": "ann"})  # type: ignore[arg-type]
    assert answer.choices[0].message.content == "héllo 🙂"
    assert is_public_id(answer.id)
    assert answer.model == f"{POLICY}@0"
    stored = await sdk.chat.completions.retrieve(answer.id)
    assert stored.choices[0].message.content == "héllo 🙂"
    assert stored.metadata == {"user": "ann"}  # type: ignore[attr-defined]
    kept = await shared.store.interactions.get(answer.id, "acme")
    assert kept is not None
    assert (kept.status, kept.untrainable, kept.policy, kept.version, kept.engine) == ("complete", "", POLICY, 0, "fake-0")
    assert bytes(t for t in kept.choices[0].token_ids if t < 256).decode() == "héllo 🙂"
    assert len(kept.choices[0].logprobs) == len(kept.choices[0].token_ids)
    assert kept.prompt_ids
    assert kept.key_id == "client"


async def test_a_stream_through_the_sdk_is_recorded_before_its_end(shared: Bench) -> None:
    text, ids = "", set()
    stream = await shared.sdk().chat.completions.create(model=POLICY, messages=SAY, stream=True)  # type: ignore[arg-type]
    async for chunk in stream:
        ids.add(chunk.id)
        assert chunk.model == f"{POLICY}@0"
        text += chunk.choices[0].delta.content or ""
    assert text == "héllo 🙂"
    assert len(ids) == 1
    kept = await shared.store.interactions.get(ids.pop(), "acme")
    assert kept is not None
    assert (kept.status, kept.untrainable) == ("complete", "")
    assert kept.choices[0].message["content"] == text
    assert kept.timings.first_token is not None


@pytest.mark.parametrize("stream", [False, True])
async def test_what_the_recorder_asked_for_never_reaches_the_client(shared: Bench, stream: bool) -> None:
    answer = await shared.chat(stream=stream)
    assert answer.status_code == 200
    assert "token_ids" not in answer.text
    assert '"logprob":' not in answer.text
    assert ('"usage"' in answer.text) is not stream
    assert answer.text.endswith("data: [DONE]\n\n") is stream


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_asks_for_log_probs_ids_and_usage_gets_them(shared: Bench, stream: bool) -> None:
    options: dict[str, Any] = {"stream_options": {"include_usage": True}} if stream else {}
    answer = await shared.chat(stream=stream, logprobs=True, return_token_ids=True, **options)
    assert '"logprob":' in answer.text
    assert '"token_ids":' in answer.text
    assert '"completion_tokens":6' in answer.text


async def test_headers_say_who_answered_and_echo_the_clients_request_id(shared: Bench) -> None:
    answer = await shared.chat(headers={"x-request-id": "mine-7", "traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"})
    assert answer.headers["x-request-id"] == "mine-7"
    assert answer.headers["x-ratchet-policy"] == f"{POLICY}@0"
    assert answer.headers["x-ratchet-engine"] == "fake-0"
    assert is_public_id(answer.json()["id"])
    base = await shared.chat(model=BASE)
    assert base.headers["x-ratchet-policy"] == "base"
    assert base.json()["model"] == BASE
    assert re.fullmatch(r"req_[0-9a-f]{32}", base.headers["x-request-id"])


@pytest.mark.parametrize("given", ["x" * 129, "caf\xe9", "a\tb"])
async def test_a_strange_request_id_is_replaced(shared: Bench, given: str) -> None:
    answer = await shared.call("GET", "/healthz", key=None, headers={"x-request-id": given.encode("latin-1")})
    assert re.fullmatch(r"req_[0-9a-f]{32}", answer.headers["x-request-id"])


async def test_each_of_n_choices_is_recorded_with_its_own_ids(shared: Bench) -> None:
    answer = await shared.chat("tell me", n=3, stream=True)
    public_id = json.loads(answer.text.split("\n")[0][6:])["id"]
    kept = await shared.store.interactions.get(public_id, "acme")
    assert kept is not None
    assert [choice.index for choice in kept.choices] == [0, 1, 2]
    assert all(len(c.token_ids) == len(c.logprobs) > 0 for c in kept.choices)
    assert len({tuple(c.token_ids) for c in kept.choices}) > 1
    assert kept.untrainable == ""


async def test_opting_out_records_nothing_but_counters(shared: Bench) -> None:
    before, count = (
        await shared.metric("ratchet_requests_total", route="/v1/chat/completions", status="200"),
        await shared.store.interactions.count(),
    )
    for stream in (False, True):
        answer = await shared.chat(store=False, stream=stream)
        assert answer.status_code == 200
        assert "token_ids" not in answer.text
    assert await shared.store.interactions.count() == count
    assert await shared.metric("ratchet_requests_total", route="/v1/chat/completions", status="200") == before + 2
    seen = (await shared.fakes["fake-0"].state())["requests"][-1]
    assert "return_token_ids" not in seen
    assert "store" not in seen


async def test_an_answer_that_is_not_fit_to_learn_from_is_recorded_with_the_reason(shared: Bench) -> None:
    answer = await shared.chat(top_p=0.5)
    kept = await shared.store.interactions.get(answer.json()["id"], "acme")
    assert kept is not None
    assert kept.untrainable == "top_p"
    assert kept.sampling.top_p == 0.5
    assert await shared.metric("ratchet_untrainable_total", reason="top_p") >= 1
    told = (await shared.call("GET", "/admin/interactions", key="operator")).json()
    assert told["untrainable"]["top_p"] >= 1


async def test_the_episode_comes_from_the_metadata_or_the_header(shared: Bench) -> None:
    for fields, headers in (({"metadata": {"episode_id": "ep-1"}}, {}), ({}, {"x-ratchet-episode-id": "ep-1"})):
        answer = await shared.chat(headers=headers, **fields)
        kept = await shared.store.interactions.get(answer.json()["id"], "acme")
        assert kept is not None
        assert kept.episode_id == "ep-1"
    assert (await shared.chat(headers={"x-ratchet-episode-id": "../x"})).status_code == 400


@pytest.mark.parametrize(
    "model", ["nobody", "support@99", "support@-1", "smollm2@0", "../../etc/passwd", "support@0/../x", "Support", "support@00"]
)
async def test_an_unknown_model_is_404(shared: Bench, model: str) -> None:
    with pytest.raises(openai.NotFoundError) as error:
        await shared.sdk().chat.completions.create(model=model, messages=SAY)  # type: ignore[arg-type]
    assert (error.value.code, error.value.param) == ("model_not_found", "model")


async def test_version_zero_may_be_pinned(shared: Bench) -> None:
    answer = await shared.chat(model=f"{POLICY}@0")
    assert answer.headers["x-ratchet-policy"] == f"{POLICY}@0"


async def test_the_engines_own_refusal_comes_in_openais_shape(shared: Bench) -> None:
    fake = shared.fakes["fake-0"]
    await fake.faults(refuse=422, times=1)
    answer = await shared.chat()
    assert answer.status_code == 422
    assert answer.json()["error"] == {
        "message": "refused, as asked",
        "type": "invalid_request_error",
        "param": None,
        "code": "engine_refused",
    }
    await fake.faults()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"nope",
        b'{"model": "support", "model": "support", "messages": []}',
        b'{"a": NaN}',
        b'{"a": ' + b"[" * 1000 + b"]" * 1000 + b"}",
        b'{"model": "\\ud800"}',
        b"\xff\xfe",
        b'{"seed": ' + b"9" * 1000 + b"}",
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/feedback"])
async def test_hostile_json_is_400_and_never_500(shared: Bench, path: str, body: bytes) -> None:
    answer = await shared.call("POST", path, body)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_json"


async def test_no_field_outside_the_allowlist_reaches_the_engine(shared: Bench) -> None:
    fake = shared.fakes["fake-0"]
    before = len((await fake.state())["requests"])
    for field in ("chat_template", "prompt_embeds", "priority", "echo"):
        answer = await shared.chat(**{field: "x"})
        assert answer.json()["error"]["param"] == field
    assert len((await fake.state())["requests"]) == before


async def test_models_are_bases_policies_and_pinned_versions(shared: Bench) -> None:
    listed = [model.id async for model in shared.sdk().models.list()]
    assert listed == [BASE, POLICY, f"{POLICY}@0"]
    assert (await shared.sdk().models.retrieve(POLICY)).id == POLICY
    with pytest.raises(openai.NotFoundError):
        await shared.sdk().models.retrieve("nobody")


async def test_the_stored_answers_are_paged_filtered_and_only_the_tenants_own(shared: Bench) -> None:
    made = [(await shared.chat(f"say:{i}", metadata={"batch": "paged", "i": str(i)})).json()["id"] for i in range(5)]
    sdk = shared.sdk()
    found = [item.id async for item in sdk.chat.completions.list(limit=2, metadata={"batch": "paged"})]
    assert found == made
    newest = await sdk.chat.completions.list(limit=1, order="desc", metadata={"batch": "paged"})
    assert [item.id for item in newest.data] == made[-1:]
    one = await sdk.chat.completions.list(metadata={"batch": "paged", "i": "3"})
    assert [item.id for item in one.data] == [made[3]]
    for model, size in ((POLICY, 5), (f"{POLICY}@0", 5), (BASE, 0), ("nobody", 0)):
        page = await sdk.chat.completions.list(model=model, limit=100, metadata={"batch": "paged"})
        assert len(page.data) == size, model
    messages = await sdk.chat.completions.messages.list(made[0])
    assert [(m.id, m.role, m.content) for m in messages.data] == [(f"{made[0]}-0", "user", "say:0")]
    other = shared.sdk("other")
    assert (await other.chat.completions.list()).data == []
    for path in (f"/v1/chat/completions/{made[0]}", f"/v1/chat/completions/{made[0]}/messages"):
        assert (await shared.call("GET", path, key="other")).status_code == 404


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "order=up", "metadata=x", "metadata[a=1", "after=" + "x" * 200])
async def test_a_wrong_query_is_400_in_openais_shape(shared: Bench, query: str) -> None:
    answer = await shared.call("GET", f"/v1/chat/completions?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_a_body_past_the_limit_is_413_however_it_is_sent(shared: Bench) -> None:
    async def long() -> AsyncIterator[bytes]:
        for _ in range(200):
            yield b" " * 65536

    for path in ("/v1/chat/completions", "/v1/feedback"):
        for options in ({}, {"headers": {"content-length": str(200 * 65536)}}):
            answer = await shared.call("POST", path, content=long(), **options)
            assert answer.status_code == 413
            assert answer.json()["error"]["code"] == "request_too_large"


async def test_a_body_that_says_it_is_too_large_is_refused_before_any_of_it_comes(shared: Bench) -> None:
    host, port = shared.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    lines = ["POST /v1/feedback HTTP/1.1", "host: x", "authorization: Bearer rk-client", f"content-length: {2**40}", "", ""]
    writer.write("\r\n".join(lines).encode())
    assert (await asyncio.wait_for(reader.readline(), 10)).split()[1] == b"413"
    writer.close()
    await writer.wait_closed()


async def test_a_compressed_body_is_415(shared: Bench) -> None:
    answer = await shared.call("POST", "/v1/feedback", b"x", headers={"content-encoding": "gzip"})
    assert answer.status_code == 415


async def test_a_client_of_http_1_0_reads_a_stream_to_the_end_of_its_connection(shared: Bench) -> None:
    body = json.dumps({"model": POLICY, "messages": SAY, "stream": True}).encode()
    lines = ["POST /v1/chat/completions HTTP/1.0", "authorization: Bearer rk-client", f"content-length: {len(body)}", "", ""]
    wire = await Wire.open(shared.url)
    await wire.send("\r\n".join(lines).encode() + body)
    head, _, said = (await wire.reader.read(-1)).partition(b"\r\n\r\n")
    wire.close()
    assert b"transfer-encoding" not in head.lower()
    events = said.split(b"\n\n")
    assert events[-2:] == [b"data: [DONE]", b""]
    chunks = [json.loads(event.removeprefix(b"data: ")) for event in events[:-2]]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == "héllo 🙂"
