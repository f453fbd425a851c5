"""Keys, engines and heartbeats."""

from __future__ import annotations

from ratchet.buffer import Store
from ratchet.types import EngineRecord, Heartbeat, KeyRecord


async def test_a_key_is_found_by_its_hash_until_it_is_revoked(store: Store) -> None:
    old, new = KeyRecord("key_a", "acme", ["infer"], 1.0), KeyRecord("key_b", "acme", ["operator"], 2.0, "ops")
    await store.keys.put("b" * 64, new)
    await store.keys.put("a" * 64, old)
    assert await store.keys.find("a" * 64) == old
    assert await store.keys.all() == [old, new]
    assert [await store.keys.revoke("key_a"), await store.keys.revoke("key_a")] == [True, False]
    assert await store.keys.find("a" * 64) is None


async def test_engines_are_as_last_said(store: Store) -> None:
    record = EngineRecord("local", "vllm", "smollm2", "http://127.0.0.1:1", "smollm2", launched=True, state="starting")
    await store.fleet.put(record)
    await store.fleet.put(EngineRecord("a", "fake", "smollm2", "http://127.0.0.1:2", "smollm2"))
    record.state, record.restarts = "ready", 2
    await store.fleet.put(record)
    assert [engine.name for engine in await store.fleet.engines()] == ["a", "local"]
    assert (await store.fleet.engines())[1] == record
    await store.fleet.remove("local")
    assert [engine.name for engine in await store.fleet.engines()] == ["a"]


async def test_a_gateway_that_falls_silent_is_forgotten(store: Store) -> None:
    await store.fleet.beat(Heartbeat("g1", {"support@1": 2}, {"support": 1}))
    await store.fleet.beat(Heartbeat("g1", {"support@1": 3}, {"support": 1}))
    assert await store.fleet.heartbeats() == [Heartbeat("g1", {"support@1": 3}, {"support": 1})]
    await store.fleet._link.do("ZADD", "r:beats:at", 1, "g1")
    assert await store.fleet.heartbeats() == []
