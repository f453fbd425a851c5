"""What the fake shares with the real vLLM alone: adapters that are loaded while it runs, and bytes that stay the engine's own."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from engines import Wants, connect
from engines.reconcile import reconcile
from engines.routes import CHAT, TEXT
from ratchet import names
from ratchet.errors import EngineRefused, EngineUnavailable
from ratchet.process import free_port
from ratchet.types import EngineRecord
from tests.contracts.conftest import REAL
from tests.contracts.sites import BASE, JSON, Site, post
from tests.contracts.test_routes import relayed
from tests.support.vllm_server import write_adapter

HELLO = [{"role": "user", "content": "Hi"}]
pytestmark = pytest.mark.parametrize("started", ["fake", REAL], indirect=True)


async def test_an_adapter_is_loaded_once_however_often_it_is_asked_for(site: Site, tmp_path: Path) -> None:
    path = write_adapter(tmp_path / "a", 1)
    for _ in range(2):
        await site.engine.load("b@1", path)
    assert (await site.engine.models()).count("b@1") == 1
    for _ in range(2):
        await site.engine.unload("b@1")
    assert "b@1" not in await site.engine.models()


async def test_loading_the_same_adapter_at_once_from_two_sides_succeeds(site: Site, tmp_path: Path) -> None:
    path = write_adapter(tmp_path / "a", 1)
    await asyncio.gather(*(site.engine.load("c@1", path) for _ in range(4)))
    assert (await site.engine.models()).count("c@1") == 1
    await site.engine.unload("c@1")


async def test_a_name_loaded_from_another_path_is_replaced(site: Site, tmp_path: Path) -> None:
    old, new = write_adapter(tmp_path / "old", 1), write_adapter(tmp_path / "new", 2)
    await site.engine.load("d@1", old)
    before = await site.engine.generate("d@1", [1, 10, 20], max_tokens=4, temperature=0)
    await site.engine.load("d@1", new)
    after = await site.engine.generate("d@1", [1, 10, 20], max_tokens=4, temperature=0)
    if site.real:  # the fake's answers depend on the name alone
        assert before[0].logprobs != after[0].logprobs
    await site.engine.load("d@1", new)
    assert (await site.engine.models()).count("d@1") == 1
    await site.engine.unload("d@1")


async def test_a_missing_adapter_or_the_bases_name_is_refused(site: Site, tmp_path: Path) -> None:
    with pytest.raises(EngineRefused) as caught:
        await site.engine.load("e@1", tmp_path / "nowhere")
    assert caught.value.status == 404
    with pytest.raises(EngineRefused) as caught:
        await site.engine.load(BASE, write_adapter(tmp_path / "a", 1))
    assert caught.value.status == 400
    await site.engine.health()


async def test_unloading_lets_a_running_stream_finish(site: Site, session: aiohttp.ClientSession, tmp_path: Path) -> None:
    await site.engine.load("f@1", write_adapter(tmp_path / "a", 1))
    fields = {"messages": HELLO, "model": "f@1", "stream": True, "max_tokens": 24, "ignore_eos": True}
    public_id = names.mint(names.CHAT_PREFIX)
    request = site.request(CHAT, fields, public_id)
    capture = site.wire.capture(CHAT, Wants(), public_id, "f@1")
    url = site.engine.record.url + request.path
    async with session.post(url, data=request.body, headers={**JSON, **request.headers}) as answer:
        capture.take(await answer.content.readuntil(b"\n\n"))
        await site.engine.unload("f@1")
        assert "f@1" not in await site.engine.models()
        async for piece in answer.content.iter_any():
            capture.take(piece)
    assert capture.done
    assert capture.captured().exact
    assert len(capture.captured().choices[0].token_ids) == 24


async def test_an_engine_is_brought_to_hold_what_is_wanted(site: Site, tmp_path: Path) -> None:
    engine, paths = site.engine, {f"g@{i}": write_adapter(tmp_path / str(i), i) for i in (1, 2, 3)}
    assert await reconcile(engine, {n: paths[n] for n in ("g@1", "g@2")}, unload=False) == {BASE, "g@1", "g@2"}
    assert await reconcile(engine, {n: paths[n] for n in ("g@2", "g@3")}, unload=False) == {BASE, "g@1", "g@2", "g@3"}
    assert await reconcile(engine, {n: paths[n] for n in ("g@2", "g@3")}, unload=True) == {BASE, "g@2", "g@3"}
    assert await reconcile(engine, {}, unload=True) == {BASE}
    assert await engine.models() == [BASE]


async def test_one_adapter_that_is_refused_does_not_keep_the_others_out(site: Site, tmp_path: Path) -> None:
    wanted = {"h@1": tmp_path / "nowhere", "h@2": write_adapter(tmp_path / "2", 2)}
    assert await reconcile(site.engine, wanted, unload=True) == {BASE, "h@2"}
    await reconcile(site.engine, {}, unload=True)


async def test_with_nobody_there_nothing_is_loaded(site: Site, tmp_path: Path) -> None:
    engine = connect(EngineRecord("gone", site.engine.record.kind, BASE, f"http://127.0.0.1:{free_port()}", BASE))
    with pytest.raises(EngineUnavailable):
        await engine.load("a@1", tmp_path)
    await engine.close()


async def test_a_client_that_asks_gets_exactly_the_engines_own_bytes(site: Site, session: aiohttp.ClientSession) -> None:
    public_id = names.mint(names.CHAT_PREFIX)
    fields: dict[str, Any] = {"model": BASE, "messages": HELLO, "max_tokens": 4, "stream": True, "temperature": 0}
    _, sent = await post(session, site, site.request(CHAT, fields, public_id))
    capture = site.wire.capture(CHAT, Wants(logprobs=True, token_ids=True, usage=True), public_id, BASE)
    assert capture.take(sent) + capture.last == sent
    assert capture.captured().exact


async def test_a_client_that_asks_for_ids_and_log_probs_of_a_text_gets_them(site: Site, session: aiohttp.ClientSession) -> None:
    for streamed in (False, True):
        answer = await relayed(session, site, TEXT, prompt="The moon", max_tokens=2, logprobs=1, return_token_ids=True, stream=streamed)
        drawn = [token for part in answer.parts for token in part["token_ids"]]
        values = [value for part in answer.parts for value in part["logprobs"]["token_logprobs"]]
        assert (drawn, values) == (answer.kept.choices[0].token_ids, answer.kept.choices[0].logprobs)
        assert answer.parts[0]["prompt_token_ids"] == answer.kept.prompt_ids
