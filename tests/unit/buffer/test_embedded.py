"""The embedded server: one a directory, whatever the last one left."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import tempfile
from pathlib import Path

import psutil
import pytest

from ratchet.buffer import EmbeddedServer, open_store
from ratchet.buffer.embedded import LONGEST_SOCKET
from ratchet.config import StoreConfig
from ratchet.errors import StoreUnavailable
from tests.support.stores import TENANT, embedded_store, interaction, post

CONFIG = StoreConfig()
UNSEEN = "chatcmpl-" + "b" * 32


async def settings(data: Path, config: StoreConfig, *wanted: str) -> list[str]:
    async with embedded_store(data, config) as store:
        return [(await store.interactions._link.do("CONFIG GET", name))[name] for name in wanted]


async def test_the_server_keeps_its_file_evicts_nothing_and_opens_no_port(tmp_path: Path) -> None:
    names = ("appendonly", "maxmemory", "maxmemory-policy", "port", "save", "protected-mode")
    assert await settings(tmp_path, StoreConfig(max_memory_mb=64), *names) == ["yes", str(64 * 2**20), "noeviction", "0", "", "yes"]
    assert (tmp_path / "logs" / "store.log").stat().st_size > 0


@pytest.mark.parametrize(("durability", "policy"), [("process", "no"), ("power", "always")])
async def test_each_durability_writes_before_it_answers(tmp_path: Path, durability: str, policy: str) -> None:
    assert await settings(tmp_path, StoreConfig.model_validate({"durability": durability}), "appendfsync") == [policy]


async def test_the_socket_is_the_users_alone(tmp_path: Path) -> None:
    server = await EmbeddedServer.start(tmp_path, CONFIG)
    try:
        assert server.socket == tmp_path / "store" / "store.sock"
        assert server.moved is None
        assert stat.S_IMODE(server.socket.stat().st_mode) == 0o700
    finally:
        await server.stop()


async def test_a_second_server_on_the_directory_is_refused_in_one_line(tmp_path: Path) -> None:
    async with embedded_store(tmp_path) as store:
        with pytest.raises(StoreUnavailable, match=r"another `ratchet up` runs on .*give another --data") as refused:
            await EmbeddedServer.start(tmp_path, CONFIG)
        assert "\n" not in str(refused.value)
        await store.ping()


async def test_a_killed_server_leaves_nothing_that_stops_the_next(tmp_path: Path) -> None:
    item = interaction()
    server = await EmbeddedServer.start(tmp_path, CONFIG)
    store = await open_store("embedded", CONFIG, data=tmp_path)
    await store.interactions.put([item])
    server.process.send_signal(signal.SIGKILL)
    assert await server.wait() == -signal.SIGKILL
    with pytest.raises(StoreUnavailable):
        await store.ping()
    await server.stop()
    assert (tmp_path / "store" / "store.sock").exists()
    again = await EmbeddedServer.start(tmp_path, CONFIG)
    try:
        assert await store.interactions.get(item.id, TENANT) == item  # the same client, reconnected, its scripts loaded anew
        assert await store.interactions.count() == 1
    finally:
        await store.close()
        await again.stop()


async def test_a_stop_is_orderly_and_the_directory_free_afterwards(tmp_path: Path) -> None:
    for _ in range(2):
        server = await EmbeddedServer.start(tmp_path, CONFIG)
        await server.stop()
        assert server.process.returncode == 0
        assert not psutil.pid_exists(server.process.pid)


async def test_a_path_too_long_for_a_socket_falls_back_to_a_private_place_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / ("d" * LONGEST_SOCKET)
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        monkeypatch.setattr(tempfile, "tempdir", place)
        server = await EmbeddedServer.start(data, CONFIG)
        try:
            assert server.socket.parent == Path(place) / f"ratchet-{os.getuid()}"
            assert stat.S_IMODE(server.socket.parent.stat().st_mode) == 0o700
            assert server.moved is not None
            assert str(server.socket) in server.moved
            store = await open_store("embedded", CONFIG, data=data)
            await store.ping()
            await store.close()
        finally:
            await server.stop()


async def test_a_temporary_place_others_may_enter_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / f"ratchet-{os.getuid()}").mkdir(mode=0o755)
    with pytest.raises(StoreUnavailable, match="0700"):
        await EmbeddedServer.start(tmp_path / ("d" * LONGEST_SOCKET), CONFIG)


async def test_a_server_that_still_listens_is_never_joined_by_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ratchet.buffer.embedded.STOP_SECONDS", 0.05)
    (tmp_path / "store").mkdir()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "store" / "store.sock"))
        other.listen()
        with pytest.raises(StoreUnavailable, match="still listens"):
            await EmbeddedServer.start(tmp_path, CONFIG)


async def test_a_server_that_cannot_start_says_where_to_look(tmp_path: Path) -> None:
    appended = tmp_path / "store" / "appendonlydir"
    appended.mkdir(parents=True)
    (appended / "appendonly.aof.manifest").write_text("nonsense\n")
    with pytest.raises(StoreUnavailable, match=r"status 1; see .*store\.log"):
        await EmbeddedServer.start(tmp_path, CONFIG)


async def test_without_a_started_server_the_store_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="ratchet up"):
        await open_store("embedded", CONFIG, data=tmp_path)
    with pytest.raises(StoreUnavailable, match="--data"):
        await open_store("embedded", CONFIG)


async def test_a_full_store_refuses_writes_but_lets_rewards_expire(tmp_path: Path) -> None:
    config = StoreConfig(max_memory_mb=16, feedback_ttl_hours=1e-9)
    async with embedded_store(tmp_path, config) as store:
        await store.feedback.post(post(UNSEEN))
        stored: list[str] = []
        for size in (300_000, 30):  # the small ones fill what the large ones left
            with pytest.raises(StoreUnavailable, match="memory is full"):
                while True:
                    item = interaction(request={"noise": os.urandom(size).hex()})
                    await store.interactions.put([item])
                    stored.append(item.id)
        assert await store.feedback.expire() == 1
        assert (await store.feedback.ledger()).balances
        assert await store.interactions.count() == len(stored)


async def test_events_after_a_restart_begin_with_the_pointers_again(tmp_path: Path) -> None:
    server = await EmbeddedServer.start(tmp_path, CONFIG)
    store = await open_store("embedded", CONFIG, data=tmp_path)
    await store.registry.ensure("support", "smollm2")
    events = store.registry.events()
    assert (await anext(events)).policy == "support"
    server.process.kill()
    await server.stop()
    waiting = asyncio.ensure_future(anext(events))
    server = await EmbeddedServer.start(tmp_path, CONFIG)
    try:
        async with asyncio.timeout(10):
            assert (await waiting).live == 0
            await store.registry.announce_loading("support")
            assert (await anext(events)).kind == "loading"
    finally:
        await events.aclose()  # type: ignore[attr-defined]
        await store.close()
        await server.stop()
