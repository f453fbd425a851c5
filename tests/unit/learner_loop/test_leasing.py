"""What a step learns from: enough examples that teach, the others set aside with a reason."""

from __future__ import annotations

from pathlib import Path

from learner import leasing
from ratchet.buffer import Store
from ratchet.types import Interaction
from tests.support.learner_setup import World, answered, configuration, world
from tests.support.stores import POLICY, rate


async def flat(w: World, prompt: str, reward: float = 0.5) -> Interaction:
    """A rated group whose rewards are all equal."""
    item = await w.ask(prompt)
    await rate(w.store, item, [reward] * item.n)
    return item


async def ready(store: Store) -> int:
    return await store.experience.ready(POLICY, ["group"])


async def test_a_step_waits_for_enough_groups(store: Store, model: Path, url: str, tmp_path: Path) -> None:
    async with world(store, tmp_path, configuration(model, url, schedule={"min_groups": 2})) as w:
        await w.learnable("one")
        assert not await w.loop.cycle()
        await w.learnable("two")
        assert await w.loop.cycle() and await w.live() == 1


async def test_only_a_request_starts_a_step_where_steps_are_not_automatic(store: Store, model: Path, url: str, tmp_path: Path) -> None:
    async with world(store, tmp_path, configuration(model, url, schedule={"min_groups": 2, "automatic": False})) as w:
        for text in ("one", "two"):
            await w.learnable(text)
        assert not await w.loop.cycle()
        await store.registry.request_training(POLICY)
        assert await w.loop.cycle() and await w.live() == 1


async def test_a_request_needs_no_minimum_and_waits_for_the_first_group(store: Store, model: Path, url: str, tmp_path: Path) -> None:
    async with world(store, tmp_path, configuration(model, url, schedule={"min_groups": 9})) as w:
        await store.registry.request_training(POLICY)
        assert not await w.loop.cycle()
        await w.learnable("one")
        assert await w.loop.cycle() and await w.live() == 1
        await w.learnable("two")
        assert not await w.loop.cycle(), "one request, one step"


async def test_a_request_outlives_a_learner_that_ended_before_its_step(store: Store, model: Path, url: str, tmp_path: Path) -> None:
    config = configuration(model, url, schedule={"min_groups": 9, "automatic": False})
    await store.registry.request_training(POLICY)
    async with world(store, tmp_path, config) as w:
        assert not await w.loop.cycle()
    async with world(store, tmp_path, config) as w:
        await w.learnable("one")
        assert await w.loop.cycle() and await w.live() == 1
        await w.learnable("two")
        assert not await w.loop.cycle(), "one request, one step"


async def test_a_group_that_teaches_nothing_is_rejected_at_the_commit_and_counted_in_the_mean_reward(
    store: Store, model: Path, url: str, tmp_path: Path
) -> None:
    async with world(store, tmp_path, configuration(model, url, schedule={"min_groups": 1})) as w:
        taught, equal = await w.learnable("one"), await flat(w, "two")
        assert await w.loop.cycle()
        version = await store.registry.version(POLICY, 1)
        assert version is not None and version.state == "live" and version.consumed == [taught.id]
        ledger = await store.feedback.ledger()
        assert ledger.balances and (ledger.used, ledger.rejected) == (4, {"zero_spread": 4})
        assert version.reward == (0 + 1 + 2 + 3 + 4 * 0.5) / 8
        assert w.loop._status.fields["skipped"] == {"zero_spread": 1}
        assert await store.feedback.answered(equal.id, "acme") is not None


async def test_a_lease_where_nothing_teaches_makes_no_version_and_ends_no_request(
    store: Store, model: Path, url: str, tmp_path: Path
) -> None:
    async with world(store, tmp_path, configuration(model, url, schedule={"min_groups": 9})) as w:
        job = await store.registry.request_training(POLICY)
        await flat(w, "one")
        assert not await w.loop.cycle()
        assert await store.registry.version(POLICY, 1) is None
        assert (await store.feedback.ledger()).rejected == {"zero_spread": 4} and await ready(store) == 0
        assert await store.registry.requested_training(POLICY) == job
        await w.learnable("two")
        assert await w.loop.cycle() and await w.live() == 1


async def test_a_lease_grows_until_enough_of_it_teaches(store: Store, model: Path, url: str, tmp_path: Path) -> None:
    async with world(store, tmp_path, configuration(model, url, schedule={"min_groups": 1})) as w:
        for number in range(2 * leasing.AHEAD):
            await flat(w, f"flat {number}")
        taught = await w.learnable("the last to be leased")
        assert await w.loop.cycle()
        version = await store.registry.version(POLICY, 1)
        assert version is not None and version.consumed == [taught.id]
        assert (await store.feedback.ledger()).rejected == {"zero_spread": 4 * 2 * leasing.AHEAD}


async def test_what_teaches_waits_for_more_where_there_is_too_little(store: Store, model: Path, url: str, tmp_path: Path) -> None:
    async with world(store, tmp_path, configuration(model, url, schedule={"min_groups": 2})) as w:
        first = await w.learnable("one")
        await flat(w, "two")
        assert not await w.loop.cycle()
        ledger = await store.feedback.ledger()
        assert (ledger.pending, ledger.rejected) == (4, {"zero_spread": 4}) and await ready(store) == 1
        second = await w.learnable("three")
        assert await w.loop.cycle()
        version = await store.registry.version(POLICY, 1)
        assert version is not None and version.consumed == sorted([first.id, second.id])


async def test_thousands_that_teach_nothing_are_not_leased_at_once(store: Store, model: Path, url: str, tmp_path: Path) -> None:
    async with world(store, tmp_path, configuration(model, url, schedule={"min_groups": 1})) as w:
        for number in range(leasing.AHEAD * (leasing.ROUNDS + 1) + 1):
            await flat(w, f"flat {number}")
        assert not await w.loop.cycle()
        left = await ready(store)
        assert 0 < left <= leasing.AHEAD + 1, "the rest is looked at in the next cycle"
        assert not await w.loop.cycle() and await ready(store) == 0


async def test_an_answer_that_cannot_be_learned_from_is_set_aside_by_its_reason(
    store: Store, model: Path, url: str, tmp_path: Path
) -> None:
    async with world(store, tmp_path, configuration(model, url)) as w:
        odd = await answered(await w.engine(), "one", 4)
        odd.choices[0].logprobs[0] = float("nan")
        long = await answered(await w.engine(), "two", 4)
        long.prompt_ids = [97] * 300  # the model attends to 256 tokens
        for item in (odd, long):
            await store.interactions.put([item])
            await rate(store, item, [0.0, 1.0, 2.0, 3.0])
        assert not await w.loop.cycle()
        assert (await store.feedback.ledger()).rejected == {"not_finite": 4, "too_long": 4}


async def test_a_lease_that_a_crash_left_is_taken_up_with_its_request(store: Store, model: Path, url: str, tmp_path: Path) -> None:
    async with world(store, tmp_path, configuration(model, url, schedule={"min_groups": 9})) as w:
        await w.learnable("one")
        await store.registry.request_training(POLICY)
        lease = await store.experience.lease(POLICY, 1, kinds={"group": 0}, max_examples=9)
        assert lease is not None and lease.job
        assert await w.loop.cycle() and await w.live() == 1
        await w.learnable("two")
        assert not await w.loop.cycle(), "one request, one step"


async def test_a_lease_that_a_crash_left_with_too_little_waits_for_more(store: Store, model: Path, url: str, tmp_path: Path) -> None:
    async with world(store, tmp_path, configuration(model, url, schedule={"min_groups": 2})) as w:
        await w.learnable("one")
        assert await store.experience.lease(POLICY, 1, kinds={"group": 0}, max_examples=9) is not None
        assert not await w.loop.cycle() and await ready(store) == 1
        await w.learnable("two")
        assert await w.loop.cycle() and await w.live() == 1
