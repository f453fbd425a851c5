"""Keys, engines and heartbeats."""

from __future__ import annotations

from typing import Any

import pytest

from ratchet.buffer import Store
from ratchet.errors import Conflict
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
    await store.fleet.heartbeat(Heartbeat("g1", {"support@1": 2}, {"support": 1}))
    await store.fleet.heartbeat(Heartbeat("g1", {"support@1": 3}, {"support": 1}))
    assert await store.fleet.heartbeats() == [Heartbeat("g1", {"support@1": 3}, {"support": 1})]
    await store.fleet._link.do("ZADD", "r:heartbeats:at", 1, "g1")
    assert await store.fleet.heartbeats() == []


def engine(name: str, **fields: Any) -> EngineRecord:
    return EngineRecord(name, "fake", "smollm2", "http://127.0.0.1:2", "smollm2", **fields)


async def desired(store: Store) -> dict[str, str]:
    return {record.name: record.desired for record in await store.fleet.engines()}


async def test_an_operators_word_on_an_engine_outlives_what_its_supervisor_says(store: Store) -> None:
    await store.fleet.put(engine("a"))
    await store.fleet.want("a", "drain")
    await store.fleet.put(engine("a", restarts=1))
    assert await desired(store) == {"a": "drain"}
    await store.fleet.want("a", "serve")
    assert await desired(store) == {"a": "serve"}
    with pytest.raises(Conflict):
        await store.fleet.want("nobody", "drain")


async def test_an_engine_is_added_once_and_an_amendment_brings_none_back(store: Store) -> None:
    await store.fleet.add(engine("a", added=True))
    with pytest.raises(Conflict):
        await store.fleet.add(engine("a"))
    await store.fleet.amend(engine("a", weight=2.0))
    assert (await store.fleet.engines())[0].weight == 2.0
    await store.fleet.remove("a")
    await store.fleet.amend(engine("a"))
    assert await store.fleet.engines() == []


@pytest.mark.parametrize("again", [False, True])
async def test_a_removal_ends_once_and_not_after_the_engine_was_added_anew(store: Store, again: bool) -> None:
    await store.fleet.put(engine("a"))
    await store.fleet.forget("a", again=again)
    assert await desired(store) == {"a": "serve"}  # nobody wanted it removed
    await store.fleet.want("a", "remove")
    with pytest.raises(Conflict):
        await store.fleet.want("a", "serve")
    assert await store.fleet.removed() == {"a"}
    await store.fleet.forget("a", again=again)
    assert await store.fleet.engines() == []
    assert await store.fleet.removed() == (set() if again else {"a"})
    await store.fleet.add(engine("a"))
    await store.fleet.forget("a", again=again)
    assert await desired(store) == {"a": "serve"}
    assert await store.fleet.removed() == set()
