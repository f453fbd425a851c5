"""One learner for each policy: acquired, renewed, fenced off, released."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from learner.loop.ownership import Identity, NotHeld, Ownership, new_identity
from ratchet.buffer import Store
from ratchet.config.model import ArtifactsConfig
from ratchet.errors import Conflict
from ratchet.tasks import end
from ratchet.types import PolicyRecord
from tests.support.learner_setup import World, configuration, until, world
from tests.support.stores import BASE, POLICY

TERM = 0.4


@asynccontextmanager
async def two(store: Store, model: Path, url: str, folder: Path, **policy: Any) -> AsyncIterator[tuple[World, World]]:
    """Two learners with data directories of their own, on one store and one shared folder; neither has begun."""
    for name in ("a", "b", "shared"):
        (folder / name).mkdir()
    shared = ArtifactsConfig(url=str(folder / "shared"))
    config = configuration(model, url, **policy).model_copy(update={"artifacts": shared})
    async with world(store, folder / "a", config) as first, world(store, folder / "b", config) as second:
        yield first, second


async def replaced(w: World) -> int:
    """Another learner takes the policy over, as from one that was silent for too long; its token."""
    ownership = w.loop.parts.ownership
    await w.store.registry.release_learner(POLICY, ownership.token)
    token = await w.store.registry.acquire_learner(POLICY, "another", 60)
    assert token is not None
    return token


async def owned(ownership: Ownership) -> bool:
    return await ownership.acquire()


async def test_a_second_learner_waits_and_the_status_says_so(store: Store, model: Path, url: str, tmp_path: Path) -> None:
    async with two(store, model, url, tmp_path) as (first, second):
        await first.loop.cycle()
        await first.learnable("Where is my parcel?")
        assert not await second.loop.cycle()
        assert await first.live() == 0, "the second does not touch what is there to learn"
        status = await store.registry.status(POLICY)
        assert status["learner"] == first.loop.parts.ownership.owner
        assert status["standby"] == second.loop.parts.ownership.owner
        assert await first.loop.cycle() and await first.live() == 1


async def test_a_learner_that_stops_leaves_the_policy_to_the_next_at_once(store: Store, model: Path, url: str, tmp_path: Path) -> None:
    async with two(store, model, url, tmp_path) as (first, second):
        await first.loop.cycle()
        await first.learnable("one")
        await first.loop.stop()
        assert await second.loop.cycle() and await second.live() == 1
        assert (await store.registry.status(POLICY))["learner"] == second.loop.parts.ownership.owner


async def test_two_learners_that_run_take_turns_over_a_stop_and_use_each_reward_once(
    store: Store, model: Path, url: str, tmp_path: Path
) -> None:
    async with two(store, model, url, tmp_path) as (first, second):
        running = [asyncio.create_task(w.loop.run()) for w in (first, second)]

        async def is_live(version: int) -> bool:
            return await first.live() == version

        await first.learnable("one")
        await until(lambda: is_live(1))
        holder, other = (0, 1) if first.loop.parts.ownership.held else (1, 0)
        assert not (first, second)[other].loop.parts.ownership.held
        await end([running[holder]])
        await (first, second)[holder].loop.stop()
        await first.learnable("two")
        await until(lambda: is_live(2))
        await end(running)
        ledger = await store.feedback.ledger()
        assert ledger.balances and ledger.used == ledger.received == 8


async def test_a_learner_replaced_during_the_update_commits_nothing_and_its_lease_goes_to_the_next(
    store: Store, model: Path, url: str, tmp_path: Path
) -> None:
    async with world(store, tmp_path, configuration(model, url)) as w:
        await w.loop.cycle()
        item = await w.learnable("one")
        update = w.loop.parts.trainer.update

        async def taken_over(*args: Any) -> Any:
            report = await update(*args)
            await replaced(w)
            return report

        w.loop.parts.trainer.update = taken_over  # type: ignore[method-assign]
        with pytest.raises((Conflict, NotHeld), match="another learner"):
            await w.loop.cycle()
        assert await store.registry.version(POLICY, 1) is None
        lease = await store.experience.lease(POLICY, 1, kinds={}, max_examples=0)
        assert lease is not None and [example.id for example in lease.examples] == [item.id]
        assert (await store.feedback.ledger()).pending == 4


async def test_the_update_of_a_learner_that_knows_it_was_replaced_ends_at_its_next_micro_batch(
    store: Store, model: Path, url: str, tmp_path: Path
) -> None:
    async with world(store, tmp_path, configuration(model, url)) as w:
        await w.loop.cycle()
        await w.learnable("one")
        save = w.loop.parts.trainer.save
        saved = []
        w.loop.parts.trainer.save = lambda *args: saved.append(args) or save(*args)  # type: ignore[func-returns-value, method-assign]
        at = w.loop.parts.trainer.at

        async def taken_over(*args: Any) -> None:
            await at(*args)
            await replaced(w)
            with pytest.raises(NotHeld):
                await w.loop.parts.ownership.confirm()

        w.loop.parts.trainer.at = taken_over  # type: ignore[method-assign]
        with pytest.raises(NotHeld, match="another learner works on support"):
            await w.loop.cycle()
        assert not saved and not (tmp_path / "adapters").exists()


@pytest.mark.parametrize("gate", [{"probes": 2}, {"probes": 2, "max_kl": 1e-12}], ids=["published", "refused"])
async def test_a_learner_replaced_during_the_gate_neither_publishes_nor_refuses_nor_unloads(
    gate: dict[str, float], store: Store, model: Path, url: str, tmp_path: Path
) -> None:
    async with world(store, tmp_path, configuration(model, url, gate=gate)) as w:
        await w.loop.cycle()
        await w.learnable("one")
        alarm = store.registry.announce_loading

        async def taken_over(policy: str) -> None:
            await alarm(policy)
            await replaced(w)

        store.registry.announce_loading = taken_over  # type: ignore[method-assign]
        try:
            with pytest.raises(NotHeld, match="another learner"):
                await w.loop.cycle()
        finally:
            store.registry.announce_loading = alarm  # type: ignore[method-assign]
        assert await w.state(1) == "candidate" and await w.live() == 0
        assert f"{POLICY}@1" in await (await w.engine()).models(), "the next learner examines what is loaded"
        assert (await store.registry.status(POLICY))["phase"] in ("gating", "updating"), "no word after the lease was lost"


async def test_a_replaced_learner_goes_on_once_the_policy_is_free_again(store: Store, model: Path, url: str, tmp_path: Path) -> None:
    async with world(store, tmp_path, configuration(model, url)) as w:
        running = asyncio.create_task(w.loop.run())
        ownership = w.loop.parts.ownership

        async def held() -> bool:
            return ownership.held

        async def lost() -> bool:
            return not ownership.held

        async def live() -> bool:
            return await w.live() == 1

        await until(held)
        token = await replaced(w)
        await until(lost)
        await w.learnable("one")
        await store.registry.release_learner(POLICY, token)
        await until(live)
        await end([running])


async def test_the_lease_is_renewed_for_as_long_as_it_is_held(store: Store) -> None:
    await store.registry.ensure(POLICY, BASE)
    mine, other = (Ownership(POLICY, store, Identity(name), TERM) for name in ("mine", "other"))
    assert await mine.acquire() and await mine.acquire()
    renewals = 0
    renew = store.registry.renew_learner

    async def counted(*args: Any) -> bool:
        nonlocal renewals
        renewals += 1
        assert not await other.acquire()
        return await renew(*args)

    async def enough() -> bool:
        return renewals >= 8

    store.registry.renew_learner = counted  # type: ignore[method-assign]
    await until(enough)
    store.registry.renew_learner = renew  # type: ignore[method-assign]
    assert mine.held and not other.held
    await mine.release()
    await until(lambda: owned(other))
    await other.release()


async def test_a_lease_that_nobody_renews_runs_out(store: Store) -> None:
    await store.registry.ensure(POLICY, BASE)
    assert await store.registry.acquire_learner(POLICY, "dead", TERM) is not None
    next_one = Ownership(POLICY, store, Identity("next"), TERM)
    assert not await next_one.acquire()
    await until(lambda: owned(next_one))
    assert next_one.token > 1
    await next_one.release()
    with pytest.raises(NotHeld):
        next_one.check()


async def test_the_successor_in_a_data_directory_does_not_wait_for_its_dead_predecessor(store: Store, tmp_path: Path) -> None:
    await store.registry.ensure(POLICY, BASE)
    (tmp_path / "checkpoints").mkdir()
    dead = new_identity(tmp_path)
    assert await store.registry.acquire_learner(POLICY, dead.name, 60) == 1
    successor = new_identity(tmp_path)
    assert successor.predecessor == dead.name != successor.name
    ownership = Ownership(POLICY, store, successor, 60)
    assert await ownership.acquire() and ownership.token == 2
    await ownership.release()


async def test_a_successor_takes_nothing_from_another_learner(store: Store) -> None:
    await store.registry.ensure(POLICY, BASE)
    assert await store.registry.acquire_learner(POLICY, "other", 60) == 1
    ownership = Ownership(POLICY, store, Identity("successor", "dead"), 60)
    assert not await ownership.acquire()
    assert await store.registry.renew_learner(POLICY, "other", 1, 60)


async def test_a_store_without_the_policys_lease_refuses_an_old_token(store: Store) -> None:
    record: PolicyRecord = await store.registry.ensure(POLICY, BASE)
    ownership = Ownership(POLICY, store, Identity("mine"), 60)
    assert await ownership.acquire()
    token = ownership.token
    await ownership.release()
    with pytest.raises(Conflict):
        await store.experience.release(record.name, token)
