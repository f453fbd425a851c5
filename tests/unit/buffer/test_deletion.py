"""What is left of a deleted answer, and what becomes of its rewards; other metadata for one that stays."""

from __future__ import annotations

import pytest

from ratchet import names
from ratchet.buffer import Store
from ratchet.buffer.schema import blob, meta, tombstone
from ratchet.errors import TargetNotYours
from ratchet.types import Interaction, Ledger
from tests.support.stores import POLICY, TENANT, candidate, interaction, listed, post, rate, rated_group

CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"


async def delete(store: Store, item: Interaction) -> bool:
    return await store.interactions.delete(item.id, TENANT, route=item.route)


async def keys_naming(store: Store, item: Interaction) -> set[str]:
    """Every key that is named after the answer or holds its id."""
    found = set()
    commands = {b"string": "GET", b"hash": "HGETALL", b"set": "SMEMBERS"}
    for key in await store.interactions._link.do("KEYS", "r:*"):
        kind = await store.interactions._link.do("TYPE", key)
        span = ("ZRANGE", key, 0, -1) if kind == b"zset" else ("XRANGE", key, "-", "+") if kind == b"stream" else (commands[kind], key)
        if item.id in f"{key} {await store.interactions._link.do(*span)}":
            found.add(key.decode())
    return found


async def test_nothing_of_a_deleted_answer_is_left_but_its_tombstone(store: Store) -> None:
    item, lone = await rated_group(store, [1.0, 0.0]), await rated_group(store, [0.5])
    assert {one.id for one in await store.experience.prompts(POLICY, 2)} == {item.id, lone.id}
    fbs = await rate(store, item, [0.25, 0.75])
    for one in (item, lone):
        assert await delete(store, one)
        ended = {f"r:f:{fb}" for fb in fbs}
        left = {key for key in await keys_naming(store, one) if not key.startswith("r:f:") or key in ended}
        assert left <= {tombstone(one.id), *ended}
        assert await store.interactions.get(one.id, None) is None
        assert not await delete(store, one)
    assert await listed(store, TENANT, limit=9) == ([], False)
    assert await store.interactions.count() == await store.experience.ready(POLICY, ["group"]) == 0
    assert await store.experience.prompts(POLICY, 9) == []
    record = await store.feedback.record(fbs[0])
    assert record is not None
    assert (record["state"], record["reason"], record["value"]) == ("rejected", "deleted", None)
    assert await store.feedback.ledger() == Ledger(received=5, rejected={"superseded": 2, "deleted": 3})


async def test_feedback_for_a_deleted_answer_is_refused_and_it_is_not_recorded_again(store: Store) -> None:
    item = interaction()
    await store.interactions.put([item])
    first = await store.feedback.post(post(item.id, idempotency_key="k"))
    await delete(store, item)
    await store.interactions.put([item])
    assert await store.interactions.get(item.id, None) is None
    for tenant in (TENANT, "other"):
        with pytest.raises(TargetNotYours):
            await store.feedback.post(post(item.id, tenant=tenant))
    assert await store.feedback.post(post(item.id, idempotency_key="k")) == first
    assert await store.feedback.ledger() == Ledger(received=1, rejected={"deleted": 1})
    assert 0 < await store.interactions._link.do("PTTL", tombstone(item.id)) <= 168 * 3_600_000


@pytest.mark.parametrize(("tenant", "route"), [("other", CHAT), (TENANT, RESPONSES)])
async def test_only_the_owner_deletes_or_changes_an_answer_and_only_by_its_own_route(store: Store, tenant: str, route: str) -> None:
    item = interaction(metadata={"a": "b"})
    await store.interactions.put([item])
    assert not await store.interactions.delete(item.id, tenant, route=route)
    assert await store.interactions.update(item.id, tenant, route=route, metadata={}) is None
    assert await store.interactions.get(item.id, TENANT) == item
    assert await store.interactions._link.do("EXISTS", tombstone(item.id)) == 0


@pytest.mark.parametrize("end", ["publish", "refuse", "drop", "release"])
async def test_an_answer_that_is_being_learned_from_goes_when_its_lease_ends(store: Store, end: str) -> None:
    item = await rated_group(store, [1.0, 0.0])
    lease = await store.experience.lease(POLICY, 1, kinds={"group": 0}, max_examples=1)
    await store.feedback.post(post(item.id, 0.5))
    assert await delete(store, item)
    assert await store.interactions.get(item.id, TENANT) is None
    assert await listed(store, TENANT, limit=9) == ([], False)
    assert await store.experience.prompts(POLICY, 9) == []
    with pytest.raises(TargetNotYours):
        await store.feedback.post(post(item.id))
    assert await store.feedback.ledger() == Ledger(received=3, pending=2, rejected={"deleted": 1})
    assert await store.experience.lease(POLICY, 1, kinds={"group": 0}, max_examples=1) == lease

    if end == "release":
        await store.experience.release(POLICY)
    else:
        await store.registry.commit_step(POLICY, 1, candidate(1, 1, [item.id] if end != "drop" else []))
    if end == "publish":
        await store.registry.publish(POLICY, 1, expect_live=0, verdict={})
    elif end == "refuse":
        await store.registry.refuse(POLICY, 1, gate="heldout", verdict={})
    left = {"publish": Ledger(3, 2, 0, {"deleted": 1}), "refuse": Ledger(3, 0, 0, {"deleted": 1, "gate": 2})}
    left |= {"drop": Ledger(3, 0, 0, {"deleted": 1, "dropped": 2}), "release": Ledger(3, 0, 0, {"deleted": 3})}
    assert await store.feedback.ledger() == left[end]
    assert await store.interactions._link.do("EXISTS", blob(item.id), meta(item.id)) == 0
    assert await store.experience.ready(POLICY, ["group"]) == 0


async def test_a_list_goes_on_after_an_answer_that_was_deleted_meanwhile(store: Store) -> None:
    items = [interaction() for _ in range(6)]
    await store.interactions.put(items)
    for item in items[:3]:
        await delete(store, item)
    assert await listed(store, TENANT, limit=9, after=items[2].id) == (items[3:], False)
    assert await listed(store, TENANT, limit=9, after=items[2].id, order="desc") == ([], False)
    assert await listed(store, "other", limit=9, after=items[2].id) == ([], False)


async def test_a_list_holds_the_answers_of_its_own_route(store: Store) -> None:
    chats = [interaction() for _ in range(3)]
    others = [interaction(id=names.mint("resp_"), route=RESPONSES) for _ in range(3)]
    await store.interactions.put([item for pair in zip(chats, others, strict=True) for item in pair])
    assert await store.interactions.scan(TENANT, limit=2, route=CHAT) == (chats[:2], True, chats[1].id)
    assert await store.interactions.scan(TENANT, limit=9, route=RESPONSES) == (others, False, None)


async def test_other_metadata_takes_the_place_of_the_old_everywhere(store: Store) -> None:
    item = interaction(metadata={"a": "1", "b": "2"}, episode_id="ep-1")
    item.request["metadata"] = dict(item.metadata)
    await store.interactions.put([item])
    for metadata in ({"a": "é", "c": "3"}, {}):
        changed = await store.interactions.update(item.id, TENANT, route=CHAT, metadata=metadata)
        assert changed is not None
        assert (changed.metadata, changed.request["metadata"], changed.episode_id) == (metadata, metadata, "ep-1")
        assert await store.interactions.get(item.id, TENANT) == changed
        found, _ = await listed(store, TENANT, limit=9, metadata=metadata)
        assert found == [changed]
        assert await listed(store, TENANT, limit=9, metadata={"b": "2"}) == ([], False)
    assert await store.interactions._link.do("PTTL", blob(item.id)) > 0


async def test_a_leased_answer_may_change_its_metadata_and_is_still_kept(store: Store) -> None:
    item = await rated_group(store, [1.0, 0.0])
    await store.experience.lease(POLICY, 1, kinds={"group": 0}, max_examples=1)
    assert await store.interactions.update(item.id, TENANT, route=CHAT, metadata={"a": "b"}) is not None
    assert await store.interactions._link.do("PTTL", blob(item.id)) == -1
