"""What the fake shares with the real vLLM alone: adapters that are loaded while it runs, and bytes that stay the engine's own."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from engines import Wants, connect
from engines.reconcile import reconcile
from engines.routes import CHAT
from ratchet import names
from ratchet.errors import EngineBroken, EngineRefused, EngineUnavailable
from ratchet.process import free_port
from ratchet.types import EngineRecord
from tests.contracts.sites import BASE, JSON, Site, post
from tests.support.engines_real import write_adapter

HELLO = [{"role": "user", "content": "Hi"}]


async def test_an_adapter_is_loaded_once_however_often_it_is_asked_for(loading: Site, tmp_path: Path) -> None:
    path = write_adapter(tmp_path / "a", 1)
    for _ in range(2):
        await loading.engine.load("b@1", path)
    assert (await loading.engine.models()).count("b@1") == 1
    for _ in range(2):
        await loading.engine.unload("b@1")
    assert "b@1" not in await loading.engine.models()


async def test_loading_the_same_adapter_at_once_from_two_sides_succeeds(loading: Site, tmp_path: Path) -> None:
    path = write_adapter(tmp_path / "a", 1)
    await asyncio.gather(*(loading.engine.load("c@1", path) for _ in range(4)))
    assert (await loading.engine.models()).count("c@1") == 1
    await loading.engine.unload("c@1")


async def test_a_name_loaded_from_another_path_is_replaced(loading: Site, tmp_path: Path) -> None:
    old, new = write_adapter(tmp_path / "old", 1), write_adapter(tmp_path / "new", 2)
    await loading.engine.load("d@1", old)
    before = await loading.engine.generate("d@1", [1, 10, 20], max_tokens=4, temperature=0)
    await loading.engine.load("d@1", new)
    after = await loading.engine.generate("d@1", [1, 10, 20], max_tokens=4, temperature=0)
    if loading.real:  # the fake's answers depend on the name alone
        assert before[0].logprobs != after[0].logprobs
    await loading.engine.load("d@1", new)
    assert (await loading.engine.models()).count("d@1") == 1
    await loading.engine.unload("d@1")


async def test_a_missing_adapter_or_the_bases_name_is_refused(loading: Site, tmp_path: Path) -> None:
    with pytest.raises(EngineRefused) as caught:
        await loading.engine.load("e@1", tmp_path / "nowhere")
    assert caught.value.status == 404
    with pytest.raises(EngineRefused) as caught:
        await loading.engine.load(BASE, write_adapter(tmp_path / "a", 1))
    assert caught.value.status == 400
    await loading.engine.health()


async def test_unloading_lets_a_running_stream_finish(loading: Site, session: aiohttp.ClientSession, tmp_path: Path) -> None:
    await loading.engine.load("f@1", write_adapter(tmp_path / "a", 1))
    fields = {"messages": HELLO, "model": "f@1", "stream": True, "max_tokens": 24, "ignore_eos": True}
    public_id = names.mint(names.CHAT_PREFIX)
    request = loading.request(CHAT, fields, public_id)
    capture = loading.wire.capture(CHAT, Wants(), public_id, "f@1")
    url = loading.engine.record.url + request.path
    async with session.post(url, data=request.body, headers={**JSON, **request.headers}) as answer:
        capture.take(await answer.content.readuntil(b"\n\n"))
        await loading.engine.unload("f@1")
        assert "f@1" not in await loading.engine.models()
        async for piece in answer.content.iter_any():
            capture.take(piece)
    assert capture.done
    assert capture.captured().exact
    assert len(capture.captured().choices[0].token_ids) == 24


async def test_an_engine_is_brought_to_hold_what_is_wanted(loading: Site, tmp_path: Path) -> None:
    engine, paths = loading.engine, {f"g@{i}": write_adapter(tmp_path / str(i), i) for i in (1, 2, 3)}
    assert await reconcile(engine, {n: paths[n] for n in ("g@1", "g@2")}, unload=False) == {BASE, "g@1", "g@2"}
    assert await reconcile(engine, {n: paths[n] for n in ("g@2", "g@3")}, unload=False) == {BASE, "g@1", "g@2", "g@3"}
    assert await reconcile(engine, {n: paths[n] for n in ("g@2", "g@3")}, unload=True) == {BASE, "g@2", "g@3"}
    assert await reconcile(engine, {}, unload=True) == {BASE}
    assert await engine.models() == [BASE]


async def test_one_adapter_that_is_refused_does_not_keep_the_others_out(loading: Site, tmp_path: Path) -> None:
    wanted = {"h@1": tmp_path / "nowhere", "h@2": write_adapter(tmp_path / "2", 2)}
    assert await reconcile(loading.engine, wanted, unload=True) == {BASE, "h@2"}
    await reconcile(loading.engine, {}, unload=True)


async def test_with_nobody_there_nothing_is_loaded(loading: Site, tmp_path: Path) -> None:
    engine = connect(EngineRecord("gone", loading.engine.record.kind, BASE, f"http://127.0.0.1:{free_port()}", BASE))
    with pytest.raises(EngineUnavailable):
        await engine.load("a@1", tmp_path)
    await engine.close()


async def test_a_client_that_asks_gets_exactly_the_engines_own_bytes(loading: Site, session: aiohttp.ClientSession) -> None:
    public_id = names.mint(names.CHAT_PREFIX)
    fields: dict[str, Any] = {"model": BASE, "messages": HELLO, "max_tokens": 4, "stream": True, "temperature": 0}
    _, sent = await post(session, loading, loading.request(CHAT, fields, public_id))
    capture = loading.wire.capture(CHAT, Wants(logprobs=True, token_ids=True, usage=True), public_id, BASE)
    assert capture.take(sent) + capture.last == sent
    assert capture.captured().exact


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
