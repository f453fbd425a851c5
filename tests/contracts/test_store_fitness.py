"""Start-up refuses a server that would lose acknowledged data, and takes one that keeps it, on TCP as on a socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from ratchet.buffer import Store, open_store
from ratchet.buffer.embedded import _binary
from ratchet.config import StoreConfig
from ratchet.errors import StoreUnavailable, StoreUnfit
from ratchet.process import free_port, spawn
from tests.support.stores import BASE, POLICY, TENANT, embedded_store, listed, rated_group

CONFIG = StoreConfig()
FIT = ("--appendonly", "yes", "--maxmemory", "64mb", "--maxmemory-policy", "noeviction")


@asynccontextmanager
async def foreign(folder: Path, *flags: str) -> AsyncIterator[str]:
    """A server that somebody else configured, on TCP; its redis:// URL."""
    port = free_port()
    argv = [*_binary(), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    # A cluster's bus would be at port + 10000, which may be none.
    argv += ["--cluster-port", str(free_port()), *flags]
    process = await spawn(argv, log=folder / "log", name="foreign")
    password = flags[flags.index("--requirepass") + 1] if "--requirepass" in flags else None
    client = Redis(port=port, password=password)
    try:
        async with asyncio.timeout(10):
            while True:
                try:
                    await client.ping()
                    break
                except (RedisError, OSError):
                    continue
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        await client.aclose()
        process.kill()
        await process.wait()


@asynccontextmanager
async def remote_store(folder: Path) -> AsyncIterator[Store]:
    async with foreign(folder, *FIT) as url:
        store = await open_store(url.replace("redis://", "valkey://"), CONFIG)
        yield store
        await store.close()


@pytest.mark.parametrize("opened", [embedded_store, remote_store])
async def test_one_code_path_serves_every_kind_of_store(
    tmp_path: Path, opened: Callable[[Path], AbstractAsyncContextManager[Store]]
) -> None:
    async with opened(tmp_path) as store:
        await store.registry.ensure(POLICY, BASE)
        item = await rated_group(store, [1.0, 0.0])
        assert await listed(store, TENANT, limit=5) == ([item], False)
        lease = await store.experience.lease(POLICY, 1, kinds={"group": 0}, max_examples=1)
        assert lease is not None
        assert lease.examples[0].interactions[0] == item
        assert (await store.feedback.ledger()).pending == 2


@pytest.mark.parametrize(
    ("flags", "remedy"),
    [
        (("--appendonly", "no"), "appendonly yes"),
        (("--appendonly", "yes", "--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru"), "maxmemory-policy noeviction"),
        (("--appendonly", "yes", "--replicaof", "127.0.0.1 1"), "its primary"),
        (("--appendonly", "yes", "--cluster-enabled", "yes"), "one node"),
    ],
)
async def test_a_store_that_would_lose_data_is_refused_with_what_to_do(tmp_path: Path, flags: tuple[str, ...], remedy: str) -> None:
    async with foreign(tmp_path, *flags) as url:
        with pytest.raises(StoreUnfit, match=remedy):
            await open_store(url, CONFIG)


async def test_without_a_memory_bound_the_eviction_policy_does_not_matter(tmp_path: Path) -> None:
    async with foreign(tmp_path, "--appendonly", "yes", "--maxmemory-policy", "allkeys-lru") as url:
        await (await open_store(url, CONFIG)).close()


async def test_a_store_nobody_serves_or_that_wants_a_password_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="no answer"):
        await open_store(f"redis://127.0.0.1:{free_port()}/0", CONFIG)
    async with foreign(tmp_path, *FIT, "--requirepass", "secret") as url:
        with pytest.raises(StoreUnavailable) as refused:
            await open_store(url, CONFIG)
        assert "secret" not in str(refused.value)
        await (await open_store(url.replace("redis://", "redis://:secret@"), CONFIG)).close()


async def test_a_server_that_does_not_answer_is_given_up_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ratchet.buffer.link.COMMAND_SECONDS", 0.2)
    async with foreign(tmp_path, *FIT) as url:
        store = await open_store(url, CONFIG)
        async with Redis.from_url(url) as other:
            await other.execute_command("CLIENT", "PAUSE", "2000", "ALL")
            with pytest.raises(StoreUnavailable):
                await store.ping()
        await store.close()
