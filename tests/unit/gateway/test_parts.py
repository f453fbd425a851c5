"""Key ring, table: the gateway's parts by themselves, on a real store where they need one."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import signal

import pytest
from starlette.types import Scope

from gateway.access.keys import KeyRing, require
from gateway.api.routes import ADMIN, DATA
from gateway.api.table import Table
from gateway.errors import ApiError, store_may_fail
from gateway.telemetry.metrics import Metrics
from ratchet.buffer import EmbeddedServer, Store
from ratchet.errors import StoreError, StoreUnavailable
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
    monkeypatch.setattr("gateway.access.keys.KNOWN_SECONDS", 0.0)
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


def test_a_store_that_is_away_is_passed_over_and_any_other_fault_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def beat(error: StoreError) -> None:
        with store_may_fail(logging.getLogger("gateway"), "the heartbeat"):
            raise error

    beat(StoreUnavailable("no answer"))
    assert not caplog.records
    beat(StoreError("a script is wrong"))
    assert caplog.messages == ["the heartbeat failed: a script is wrong"]


async def test_the_memory_of_keys_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.access.keys.REMEMBERED", 3)
    ring = KeyRing(store.keys)
    for i in range(10):
        with pytest.raises(ApiError):
            await ring.caller(ask(f"guess-{i}"))
    assert len(ring._seen) == 3


def test_one_of_the_scopes_is_enough_and_none_is_not() -> None:
    caller = KeyRecord("one", "acme", ["infer"], 1.0)
    require(caller, frozenset({"infer", "operator"}))
    for scopes in (frozenset({"operator"}), frozenset[str]()):
        with pytest.raises(ApiError) as refused:
            require(caller, scopes)
        assert (refused.value.status, refused.value.code) == (403, "insufficient_permissions")


def test_the_table_finds_exactly_its_paths() -> None:
    for routes in (DATA, ADMIN):
        table = Table(routes)
        assert len({route.path for route in routes}) == len(routes)
        for route in routes:
            found = table.find(route.path.replace("{", "").replace("}", ""))
            assert found is route
            assert not route.built & route.planned
            assert table.find(route.path.rstrip("/") + "//") is None
    assert Table(DATA).find("/v1/models/a\n") is not Table(DATA).find("/v1/models")


def test_only_more_than_fifty_milliseconds_before_dispatch_is_held() -> None:
    metrics = Metrics()
    assert not metrics.dispatched(0.05, during_swap=True)
    assert metrics.dispatched(0.051, during_swap=True)
    assert metrics.registry.get_sample_value("ratchet_held_total", {"during_swap": "true"}) == 1
    assert metrics.registry.get_sample_value("ratchet_held_total", {"during_swap": "false"}) == 0
