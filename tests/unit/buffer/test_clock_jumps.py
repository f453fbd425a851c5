"""The server's wall clock jumps an hour forth and back: what is stored, listed, leased and counted is the same.

The server has no clock of its own to set, so the scripts are given one that jumps: `now_ms` reads what to add from a key.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from ratchet.buffer import Store, link, lua
from ratchet.types import Heartbeat
from tests.support.stores import BASE, POLICY, TENANT, candidate, embedded_store, interaction, listed, post

HOUR = 3_600_000
NOW = "return t[1] * 1000 + math.floor(t[2] / 1000)"
JUMP = "test:jump"


@pytest.fixture
def jumping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every script's clock is the server's plus what JUMP holds, in milliseconds."""
    texts = {name: script.text for name, script in lua.scripts().items()}
    assert {text.count(NOW) for text in texts.values()} == {0, 1}
    later = f"{NOW} + tonumber(call('GET', '{JUMP}') or '0')"
    shifted = {name: lua.assemble(text.replace(NOW, later), {}) for name, text in texts.items()}
    monkeypatch.setattr(link, "scripts", lambda: shifted)


async def jump(store: Store, by: int) -> None:
    await store.interactions._link.do("SET", JUMP, by)


async def story(store: Store, between: Callable[[], Awaitable[None]]) -> list[Any]:
    """Answers, rewards, lists, a step, a deletion; what is seen of them, ids by their number. `between` runs before each."""
    items = [interaction(2, id=f"chatcmpl-{i:032x}", metadata={"i": str(i)}) for i in range(6)]
    seen: list[Any] = []

    async def tell(what: Any) -> None:
        seen.append(what)
        await between()

    for item in items:
        await store.feedback.post(post(item.id, 0.5, choice=1))  # it waits for its answer
        await store.interactions.put([item])
        await tell(await listed(store, TENANT, limit=9, order="desc"))
        await store.feedback.post(post(item.id, 1.0, choice=0, idempotency_key=item.id))
        await store.feedback.post(post(item.id, 1.0, choice=0, idempotency_key=item.id))
        await tell(await store.feedback.expire())
    await store.interactions.delete(items[5].id, TENANT, route=items[5].route)
    await tell(await store.experience.prompts(POLICY, 3))
    lease = await store.experience.lease(POLICY, 1, kinds={"group": 0}, max_examples=3)
    assert lease is not None
    await tell([(example.id, example.interactions, example.rewards) for example in lease.examples])
    await store.registry.commit_step(POLICY, 1, candidate(1, 1, [items[0].id, items[1].id]))
    await tell(await store.feedback.ledger())
    await store.registry.publish(POLICY, 1, expect_live=0, verdict={})
    await tell([await store.interactions.get(item.id, TENANT) for item in items])
    await tell(await listed(store, TENANT, limit=2, after=items[2].id))
    await tell((await store.feedback.ledger(), await store.registry.policy(POLICY), await store.registry.lived(POLICY)))
    return seen


@pytest.mark.usefixtures("jumping")
async def test_jumps_of_an_hour_change_nothing_of_what_is_seen(tmp_path: Path) -> None:
    told: list[Any] = []
    for jumps in ([0], [HOUR, -HOUR], [-HOUR, HOUR, 0]):
        async with embedded_store(tmp_path / str(len(told))) as store:
            await store.registry.ensure(POLICY, BASE)
            left = iter(jumps * 100)

            async def between(store: Store = store, left: Any = left) -> None:
                await jump(store, next(left))

            told.append(await story(store, between))
            assert (await store.feedback.ledger()).balances
    assert told[1] == told[0]
    assert told[2] == told[0]


@pytest.mark.usefixtures("jumping")
@pytest.mark.parametrize("by", [HOUR, -HOUR])
async def test_a_living_gateway_stays_one_over_a_jump_and_a_silent_one_is_forgotten_in_time(store: Store, by: int) -> None:
    beat = Heartbeat("g1", {"support@1": 1}, {POLICY: 1})
    await store.fleet.heartbeat(beat)
    await jump(store, by)
    assert await store.fleet.heartbeats() == [beat]
    for after in (2_000, 4_000, 6_000):
        assert await store.fleet.heartbeats() == [beat]
        await jump(store, by + after)
    assert await store.fleet.heartbeats() == []


@pytest.mark.usefixtures("jumping")
@pytest.mark.parametrize("by", [HOUR, -HOUR])
async def test_a_jump_ends_no_learners_lease_and_silence_does_over_a_jump_too(store: Store, by: int) -> None:
    registry, seconds = store.registry, 60.0
    token = await registry.acquire_learner(POLICY, "a", seconds)
    assert token is not None
    await jump(store, by)
    assert await registry.acquire_learner(POLICY, "b", seconds) is None
    assert await registry.renew_learner(POLICY, "a", token, seconds)
    await jump(store, 0)
    assert await registry.acquire_learner(POLICY, "b", seconds) is None
    assert await registry.renew_learner(POLICY, "a", token, seconds)
    for after in (20_000, 40_000, 59_000):
        await jump(store, after)
        assert await registry.acquire_learner(POLICY, "b", seconds) is None
    await jump(store, 61_000)
    assert await registry.acquire_learner(POLICY, "b", seconds) == token + 1


@pytest.mark.usefixtures("jumping")
async def test_whoever_asks_rarely_gets_a_dead_learners_policy_at_the_second_look(store: Store) -> None:
    assert await store.registry.acquire_learner(POLICY, "a", 1.0) == 1
    found = []
    for after in (HOUR, 2 * HOUR):
        await jump(store, after)
        found.append(await store.registry.acquire_learner(POLICY, "b", 1.0))
    assert found == [None, 2]
