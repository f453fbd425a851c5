"""How an example of any kind ends: used, rejected, released, revised, deleted or expired."""

from __future__ import annotations

from pathlib import Path

import pytest

from ratchet.buffer import Store
from ratchet.buffer.schema import blob, meta
from ratchet.config import StoreConfig
from ratchet.types import ExampleKind, Ledger
from tests.support.stores import BASE, POLICY, TENANT, candidate, embedded_store, interaction, rated_group
from tests.unit.buffer.feedback_examples import SINGLES, counts, expire_all, lease, one_of, preference, recorded, state, typed


@pytest.mark.parametrize("kind", SINGLES)
async def test_an_example_of_any_kind_whose_interactions_expired_is_rejected_at_the_lease(store: Store, kind: str) -> None:
    item, posted = await one_of(store, kind)
    await store.feedback.post(posted)
    assert await counts(store) == {kind: 1}
    await store.interactions._link.do("DEL", blob(item.id), meta(item.id))
    assert await lease(store) == []
    assert await store.feedback.ledger() == Ledger(received=1, rejected={"interaction_expired": 1})


@pytest.mark.parametrize("kind", SINGLES)
async def test_a_stale_example_of_any_kind_is_rejected_at_the_lease(store: Store, kind: ExampleKind) -> None:
    _, posted = await one_of(store, kind, version=1)
    await store.feedback.post(posted)
    assert await lease(store, **{kind: 2}) == []
    assert await store.feedback.ledger() == Ledger(received=1, rejected={"stale": 1})


@pytest.mark.parametrize("kind", SINGLES)
async def test_an_example_of_any_kind_ends_as_its_candidate_does(store: Store, kind: str) -> None:
    _, posted = await one_of(store, kind)
    for step, (live, ends) in enumerate([(0, "refuse"), (0, "publish")], start=1):
        fb = await store.feedback.post(posted)
        [found] = await lease(store, step)
        waiting = await store.feedback.post(posted)
        assert await state(store, waiting) == "waiting"
        await store.registry.commit_step(POLICY, step, candidate(step, step, [found.id]))
        if ends == "refuse":
            await store.registry.refuse(POLICY, step, gate="heldout", verdict={})
            assert [await state(store, one) for one in (fb, waiting)] == ["rejected:gate", "pending"]
            assert await counts(store) == {kind: 1}, "the revision is an example of its own"
        else:
            await store.registry.publish(POLICY, step, expect_live=live, verdict={})
            assert [await state(store, one) for one in (fb, waiting)] == ["used", "rejected:too_late"]
            assert await state(store, await store.feedback.post(posted)) == "rejected:too_late"
            assert await counts(store) == {}
    assert (await store.feedback.ledger()).balances
    assert await store.interactions._link.do("KEYS", "r:held:*") == []


@pytest.mark.parametrize("kind", SINGLES)
async def test_a_release_makes_an_example_of_any_kind_ready_again_with_its_revision(store: Store, kind: str) -> None:
    _, posted = await one_of(store, kind)
    first = await store.feedback.post(posted)
    before = await lease(store)
    await store.experience.release(POLICY)
    assert await lease(store, 2) == before
    second = await store.feedback.post(posted)
    await store.experience.release(POLICY)
    assert [await state(store, fb) for fb in (first, second)] == ["rejected:superseded", "pending"]
    [found] = await lease(store, 3)
    assert (found.id, found.signals[0].feedback) == (before[0].id, second)
    await store.experience.release(POLICY)
    assert await store.interactions._link.do("KEYS", "r:held:*") == []


@pytest.mark.parametrize("kind", SINGLES)
async def test_a_revision_takes_the_place_of_a_ready_example_of_any_kind(store: Store, kind: str) -> None:
    _, posted = await one_of(store, kind)
    await store.feedback.post(posted)
    second = await store.feedback.post(posted)
    assert await counts(store) == {kind: 1}
    [found] = await lease(store)
    assert found.signals[0].feedback == second


@pytest.mark.parametrize("kind", ["lone", "comment", "demonstration", "pair"])
async def test_deleting_an_answer_ends_every_example_of_its_feedback(store: Store, kind: str) -> None:
    item, posted = await one_of(store, kind)
    await store.feedback.post(posted)
    await store.interactions.delete(item.id, TENANT, route=item.route)
    assert await counts(store) == {}
    assert await store.feedback.ledger() == Ledger(received=1, rejected={"deleted": 1})


async def test_a_pair_is_rejected_once_an_answer_it_names_was_deleted(store: Store) -> None:
    chosen, rejected, other = await recorded(store), await recorded(store), interaction()
    ready = await store.feedback.post(preference(chosen, rejected))
    parked = await store.feedback.post(preference(rejected, other, target=chosen.id, choice=0, metric="second"))
    await store.interactions.delete(rejected.id, TENANT, route=rejected.route)
    assert await lease(store) == []
    await store.interactions.put([other])
    posted = await store.feedback.post(preference(chosen, rejected, metric="third"))
    assert [await state(store, fb) for fb in (ready, parked, posted)] == ["rejected:deleted"] * 3


async def test_an_answer_in_several_leased_examples_is_kept_until_the_last_ends(store: Store) -> None:
    item = await rated_group(store, [1.0, 0.0])
    await store.feedback.post(typed(item.id, "boolean", True))
    group, lone = await lease(store)
    link = store.interactions._link
    await store.experience.reject(POLICY, 1, {group.id: "zero_spread"})
    assert await link.do("PTTL", blob(item.id)) == -1
    await store.interactions.delete(item.id, TENANT, route=item.route)
    assert await lease(store) == [lone]
    await store.experience.reject(POLICY, 1, {lone.id: "no_class"})
    assert await link.do("EXISTS", blob(item.id)) == 0
    assert (await store.feedback.ledger()).rejected == {"zero_spread": 2, "no_class": 1}


@pytest.mark.parametrize("kind", SINGLES)
async def test_an_example_that_nobody_leases_goes_when_its_feedback_expires(tmp_path: Path, kind: str) -> None:
    async with embedded_store(tmp_path, StoreConfig(feedback_ttl_hours=1e-9)) as store:
        await store.registry.ensure(POLICY, BASE)
        _, posted = await one_of(store, kind)
        await store.feedback.post(posted)
        await expire_all(store)
        assert await counts(store) == {}
        assert await store.interactions._link.do("KEYS", "r:x:*") == []
        assert await store.feedback.ledger() == Ledger(received=1, expired=1)


async def test_kinds_are_taken_in_turn_and_only_those_asked_for(store: Store) -> None:
    for _ in range(3):
        await rated_group(store, [1.0, 0.0])
        _, posted = await one_of(store, "lone")
        await store.feedback.post(posted)
        _, posted = await one_of(store, "comment")
        await store.feedback.post(posted)
    found = await store.experience.lease(POLICY, 1, kinds={"lone": 0, "group": 0}, max_examples=4)
    assert found is not None
    assert [example.kind for example in found.examples].count("lone") == 2
    assert [example.kind for example in found.examples].count("group") == 2
    assert await store.experience.ready(POLICY, ["group", "lone", "comment"]) == 5
    ids = [example.id for example in found.examples]
    assert ids == sorted(ids)
