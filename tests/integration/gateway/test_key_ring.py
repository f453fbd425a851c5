"""The key ring, on a real store."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal

import pytest
from starlette.types import Scope

from gateway.access.keys import KeyRing
from gateway.errors import ApiError
from ratchet.buffer import EmbeddedServer, Store
from ratchet.types import KeyRecord


def ask(key: str | None, name: bytes = b"authorization", scheme: str = "Bearer ") -> Scope:
    return {"type": "http", "headers": [(name, (scheme + key).encode())] if key is not None else []}


async def test_a_key_is_found_by_its_hash_and_remembered_while_the_store_is_away(server: EmbeddedServer, store: Store) -> None:
    await store.keys.put(hashlib.sha256(b"rk-one").hexdigest(), KeyRecord("one", "acme", ["infer"], 1.0))
    ring = KeyRing(store.keys)
    assert (await ring.caller(ask("rk-one"))).tenant == "acme"
    assert (await ring.caller(ask("rk-one", scheme="bearer "))).tenant == "acme"
    assert (await ring.caller(ask("rk-one", b"x-api-key", ""), x_api_key=True)).tenant == "acme"
    for scope in (ask(None), ask(""), ask("rk-two"), ask("k" * 600), ask("rk-one", b"x-api-key", ""), ask("rk-one", scheme="Basic ")):
        with pytest.raises(ApiError) as refused:
            await ring.caller(scope)
        assert (refused.value.status, refused.value.code) == (401, "invalid_api_key")
    await server.stop()
    assert (await ring.caller(ask("rk-one"))).id == "one"
    with pytest.raises(ApiError) as away:
        await ring.caller(ask("rk-three"))
    assert (away.value.status, away.value.retry_after) == (503, 1.0)


async def test_a_revoked_key_ends_and_a_store_that_hangs_delays_no_known_one(
    server: EmbeddedServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.access.keys.FRESH_SECONDS", 0.0)
    for name in ("one", "two"):
        await store.keys.put(hashlib.sha256(name.encode()).hexdigest(), KeyRecord(name, "acme", ["infer"], 1.0))
    ring = KeyRing(store.keys)
    for name in ("one", "two"):
        assert (await ring.caller(ask(name))).id == name
    await store.keys.revoke("two")
    with pytest.raises(ApiError):
        await ring.caller(ask("two"))
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(2):
            for _ in range(50):
                assert (await ring.caller(ask("one"))).id == "one"
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    await ring.close()


async def test_the_memory_of_keys_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.access.keys.MAX_CACHED", 3)
    ring = KeyRing(store.keys)
    for i in range(10):
        with pytest.raises(ApiError):
            await ring.caller(ask(f"guess-{i}"))
    assert len(ring._cache) == 3
