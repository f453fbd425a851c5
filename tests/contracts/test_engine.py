"""One contract, over the fake and over the real vLLM."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from engines import Engine, connect, sse
from engines.reconcile import reconcile
from engines.vllm.capture import Captured, StreamCapture, Wants, capture_whole
from ratchet import names
from ratchet.errors import EngineBroken, EngineRefused, EngineUnavailable
from ratchet.process import free_port
from ratchet.types import EngineRecord
from tests.contracts.sites import BASE, Site
from tests.support.engines_real import write_adapter

ROUTE = "/v1/chat/completions"
TEXTS = {
    "plain": "The moon is bright.",
    "unicode": "naïve Straße — œuvre, Ελλάδα, 日本語",
    "emoji": "🙂👩‍👩‍👧 ok 🏳️‍🌈",
    "code": 'def f(x):\n\treturn {"a": x["logprobs"]}  # ,"token_ids":[1]\n',
    "quotes": '\\"logprobs\\":{"content":[]} \\u0041 "',
}


async def ask(session: aiohttp.ClientSession, engine: Engine, body: dict[str, Any], wants: Wants | None = None) -> tuple[bytes, Captured]:
    """As the gateway relays: the engine's fields laid over, the answer captured; what the client would see."""
    wants = wants or Wants()
    public_id = names.mint(names.CHAT_PREFIX)
    body = {"model": BASE, "max_tokens": 80, **body}
    url = f"{engine.record.url}/v1/chat/completions"
    async with session.post(url, json={**body, **engine.extras(ROUTE, body)}, headers=engine.headers(public_id)) as answer:
        assert answer.status == 200, await answer.text()
        if not body.get("stream"):
            return capture_whole(await answer.read(), wants, public_id, body["model"])
        capture, seen, rest = StreamCapture(wants, public_id, body["model"]), b"", b""
        async for piece in answer.content.iter_any():
            events, rest = sse.split(rest + piece)
            seen += b"".join(sse.frame(out) for event in events if (out := capture.event(event)) is not None)
        assert capture.done and capture.finished
        return seen, capture.captured()


def seen_text(seen: bytes, streamed: bool) -> str:
    if not streamed:
        return str(json.loads(seen)["choices"][0]["message"]["content"])
    events = [json.loads(e) for e in sse.split(seen)[0][:-1]]
    return "".join(e["choices"][0]["delta"].get("content") or "" for e in events)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
async def test_ids_and_log_probs_are_exact_and_the_ids_decode_to_the_text(
    site: Site, session: aiohttp.ClientSession, text: str, streamed: bool
) -> None:
    seen, captured = await ask(session, site.engine, {**site.asked_to_say(text), "stream": streamed, "max_tokens": 160})
    choice = captured.choices[0]
    assert captured.exact
    assert choice.message["content"] == text == seen_text(seen, streamed) == site.decoded(choice.token_ids)
    assert len(choice.logprobs) == captured.usage["completion_tokens"]
    assert all(value <= 0 for value in choice.logprobs)
    assert len(captured.prompt_ids) == captured.usage["prompt_tokens"]


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_an_empty_answer_is_exact(site: Site, session: aiohttp.ClientSession, streamed: bool) -> None:
    seen, captured = await ask(session, site.engine, {**site.asked_to_say(""), "stream": streamed})
    assert captured.exact
    assert captured.choices[0].message["content"] == "" == seen_text(seen, streamed)
    assert len(captured.choices[0].token_ids) == 1  # the end token


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_every_choice_is_exact_and_the_id_is_the_public_one(site: Site, session: aiohttp.ClientSession, streamed: bool) -> None:
    body = {"messages": [{"role": "user", "content": "Say hi"}], "n": 3, "max_tokens": 6, "temperature": 1.0, "stream": streamed}
    seen, captured = await ask(session, site.engine, body)
    assert captured.exact
    assert [c.index for c in captured.choices] == [0, 1, 2]
    first = json.loads(sse.split(seen)[0][0] if streamed else seen)
    assert names.RESPONSE_ID.fullmatch(first["id"])


async def test_the_engine_takes_the_public_id_over_so_that_nothing_is_rewritten(site: Site, session: aiohttp.ClientSession) -> None:
    public_id = names.mint(names.CHAT_PREFIX)
    body = {"model": BASE, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    url = f"{site.engine.record.url}/v1/chat/completions"
    async with session.post(url, json=body, headers=site.engine.headers(public_id)) as answer:
        assert (await answer.json())["id"] == public_id


async def test_nothing_asked_for_the_recorder_is_seen_by_the_client(site: Site, session: aiohttp.ClientSession) -> None:
    for streamed in (False, True):
        body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4, "stream": streamed}
        seen, _ = await ask(session, site.engine, body)
        assert b"token_ids" not in seen
        assert b'"logprob"' not in seen
        assert (b'"usage"' in seen) is not streamed


async def test_a_client_that_asks_gets_exactly_the_engines_own_bytes(site: Site, session: aiohttp.ClientSession) -> None:
    wants = Wants(logprobs=True, token_ids=True, usage=True)
    public_id = names.mint(names.CHAT_PREFIX)
    body = {"model": BASE, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4, "stream": True, "temperature": 0}
    asked = {**body, **site.engine.extras(ROUTE, body)}
    url = f"{site.engine.record.url}/v1/chat/completions"
    async with session.post(url, json=asked, headers=site.engine.headers(public_id)) as answer:
        sent = await answer.read()
    capture = StreamCapture(wants, public_id, BASE)
    assert b"".join(sse.frame(capture.event(e) or b"") for e in sse.split(sent)[0]) == sent
    assert capture.captured().exact


async def test_usage_options_of_the_client_are_kept(site: Site) -> None:
    body = {"stream": True, "stream_options": {"include_obfuscation": False}}
    assert site.engine.extras(ROUTE, body)["stream_options"] == {"include_obfuscation": False, "include_usage": True}
    assert "stream_options" not in site.engine.extras(ROUTE, {})


async def test_a_stop_string_leaves_ids_and_log_probs_in_step(site: Site, session: aiohttp.ClientSession) -> None:
    for streamed in (False, True):
        _, captured = await ask(session, site.engine, {**site.asked_to_say("one two three"), "stop": ["two"], "stream": streamed})
        assert captured.exact
        assert captured.choices[0].message["content"] == "one "
        assert captured.choices[0].finish_reason == "stop"


async def test_it_is_healthy_and_lists_its_base_first(site: Site, tmp_path: Path) -> None:
    await site.engine.healthy()
    await site.engine.load_adapter("a@1", write_adapter(tmp_path / "a", 1))
    assert (await site.engine.models())[0] == BASE
    await site.engine.unload_adapter("a@1")


async def test_samples_have_exact_ids_and_log_probs(site: Site) -> None:
    samples = await site.engine.generate(BASE, [1, 10, 20], n=3, max_tokens=5, temperature=1.0, seed=7, priority=5)
    assert len(samples) == 3
    for sample in samples:
        assert 0 < len(sample.token_ids) == len(sample.logprobs) <= 5
        assert sample.finish_reason in ("stop", "length")
        assert site.decoded(sample.token_ids) == sample.text


async def test_sampling_an_unknown_model_is_refused(site: Site) -> None:
    with pytest.raises(EngineRefused) as caught:
        await site.engine.generate("nobody@3", [1], max_tokens=1)
    assert caught.value.status == 404


async def test_an_adapter_is_loaded_once_however_often_it_is_asked_for(site: Site, tmp_path: Path) -> None:
    path = write_adapter(tmp_path / "a", 1)
    for _ in range(2):
        await site.engine.load_adapter("b@1", path)
    assert (await site.engine.models()).count("b@1") == 1
    based = await site.engine.generate(BASE, [1, 10, 20], max_tokens=4, temperature=0)
    adapted = await site.engine.generate("b@1", [1, 10, 20], max_tokens=4, temperature=0)
    assert based[0].logprobs != adapted[0].logprobs
    for _ in range(2):
        await site.engine.unload_adapter("b@1")
    assert "b@1" not in await site.engine.models()


async def test_loading_the_same_adapter_at_once_from_two_sides_succeeds(site: Site, tmp_path: Path) -> None:
    path = write_adapter(tmp_path / "a", 1)
    await asyncio.gather(*(site.engine.load_adapter("c@1", path) for _ in range(4)))
    assert (await site.engine.models()).count("c@1") == 1
    await site.engine.unload_adapter("c@1")


async def test_a_name_loaded_from_another_path_is_replaced(site: Site, tmp_path: Path) -> None:
    old, new = write_adapter(tmp_path / "old", 1), write_adapter(tmp_path / "new", 2)
    await site.engine.load_adapter("d@1", old)
    before = await site.engine.generate("d@1", [1, 10, 20], max_tokens=4, temperature=0)
    await site.engine.load_adapter("d@1", new)
    after = await site.engine.generate("d@1", [1, 10, 20], max_tokens=4, temperature=0)
    if site.real:  # the fake's answers depend on the name alone
        assert before[0].logprobs != after[0].logprobs
    await site.engine.load_adapter("d@1", new)
    assert (await site.engine.models()).count("d@1") == 1
    await site.engine.unload_adapter("d@1")


async def test_a_missing_adapter_or_the_bases_name_is_refused(site: Site, tmp_path: Path) -> None:
    with pytest.raises(EngineRefused) as caught:
        await site.engine.load_adapter("e@1", tmp_path / "nowhere")
    assert caught.value.status == 404
    with pytest.raises(EngineRefused) as caught:
        await site.engine.load_adapter(BASE, write_adapter(tmp_path / "a", 1))
    assert caught.value.status == 400
    await site.engine.healthy()


async def test_unloading_lets_a_running_stream_finish(site: Site, session: aiohttp.ClientSession, tmp_path: Path) -> None:
    await site.engine.load_adapter("f@1", write_adapter(tmp_path / "a", 1))
    body = {"messages": [{"role": "user", "content": "Hi"}], "model": "f@1", "stream": True, "max_tokens": 24, "ignore_eos": True}
    body |= site.engine.extras(ROUTE, body)
    capture, rest = StreamCapture(Wants(), names.mint(names.CHAT_PREFIX), "f@1"), b""
    async with session.post(f"{site.engine.record.url}/v1/chat/completions", json=body) as answer:
        rest = await answer.content.readuntil(b"\n\n")
        await site.engine.unload_adapter("f@1")
        assert "f@1" not in await site.engine.models()
        async for piece in answer.content.iter_any():
            events, rest = sse.split(rest + piece)
            for event in events:
                capture.event(event)
    assert capture.done
    assert capture.captured().exact
    assert len(capture.captured().choices[0].token_ids) == 24


async def test_an_engine_is_brought_to_hold_what_is_wanted(site: Site, tmp_path: Path) -> None:
    paths = {f"g@{i}": write_adapter(tmp_path / str(i), i) for i in (1, 2, 3)}
    assert await reconcile(site.engine, {n: paths[n] for n in ("g@1", "g@2")}, unload=False) == {BASE, "g@1", "g@2"}
    assert await reconcile(site.engine, {n: paths[n] for n in ("g@2", "g@3")}, unload=False) == {BASE, "g@1", "g@2", "g@3"}
    assert await reconcile(site.engine, {n: paths[n] for n in ("g@2", "g@3")}, unload=True) == {BASE, "g@2", "g@3"}
    assert await reconcile(site.engine, {}, unload=True) == {BASE}
    assert await site.engine.models() == [BASE]


async def test_one_adapter_that_is_refused_does_not_keep_the_others_out(site: Site, tmp_path: Path) -> None:
    wanted = {"h@1": tmp_path / "nowhere", "h@2": write_adapter(tmp_path / "2", 2)}
    assert await reconcile(site.engine, wanted, unload=True) == {BASE, "h@2"}
    await reconcile(site.engine, {}, unload=True)


async def test_load_tells_slots_and_rises_while_it_answers(site: Site, session: aiohttp.ClientSession) -> None:
    assert (await site.engine.load()).running == 0
    body = {"model": BASE, "messages": [{"role": "user", "content": "Hi"}], "stream": True, "max_tokens": 400, "ignore_eos": True}
    async with session.post(f"{site.engine.record.url}/v1/chat/completions", json=body) as answer:
        await answer.content.readuntil(b"\n\n")
        load = await site.engine.load()
    assert load.slots == site.engine.record.slots > 0
    assert load.waiting == 0
    if site.real:  # the fake is through in a moment
        assert load.running == 1


async def test_nobody_there_is_unavailable_whatever_is_asked(tmp_path: Path) -> None:
    engine = connect(EngineRecord("gone", "vllm", BASE, f"http://127.0.0.1:{free_port()}", BASE))
    for call in (
        engine.models(),
        engine.healthy(),
        engine.load(),
        engine.load_adapter("a@1", tmp_path),
        engine.generate(BASE, [1], max_tokens=1),
    ):
        with pytest.raises(EngineUnavailable):
            await call
    await engine.close()


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
        engine = connect(EngineRecord("odd", "vllm", BASE, str(server.make_url("")), BASE))
        with pytest.raises(EngineBroken, match="pair up"):
            await engine.generate(BASE, [1], max_tokens=2)
        await engine.close()
