"""Interactions: written once, found by id and tenant, listed in the order of arrival."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ratchet.buffer import Store
from ratchet.buffer.interactions import Page
from ratchet.buffer.schema import SHADOW_TENANT, pack, unpack
from ratchet.config import StoreConfig
from tests.support.stores import BASE, TENANT, embedded_store, interaction, listed


async def test_an_interaction_comes_back_field_by_field(store: Store) -> None:
    item = interaction(2, metadata={"a": "é"}, episode_id="ep-1", request={"messages": [{"role": "user", "content": "naïve 🙂"}]})
    assert unpack(pack(item)) == item
    await store.interactions.put([item])
    item.turn = 0
    assert await store.interactions.get(item.id, TENANT) == item


async def test_log_probs_keep_every_bit(store: Store) -> None:
    item = interaction()
    item.choices[0].logprobs = [-0.1, -1e-17, -123.45678901234567]
    await store.interactions.put([item])
    found = await store.interactions.get(item.id, None)
    assert found is not None
    assert [value.hex() for value in found.choices[0].logprobs] == [value.hex() for value in item.choices[0].logprobs]


async def test_another_tenants_interaction_is_not_found(store: Store) -> None:
    item = interaction()
    await store.interactions.put([item])
    assert await store.interactions.get(item.id, "other") is None
    assert await store.interactions.get(item.id, None) == item
    assert await store.interactions.get("chatcmpl-" + "0" * 32, None) is None


async def test_the_same_id_twice_is_recorded_once_and_unchanged(store: Store) -> None:
    item = interaction(untrainable="top_p")
    await store.interactions.put([item, item])
    await store.interactions.put([interaction(id=item.id, untrainable="no_ids")])
    assert await store.interactions.get(item.id, TENANT) == item
    assert await store.interactions.count() == 1
    assert await store.interactions.untrainable() == {"top_p": 1}


async def test_pages_follow_arrival_and_say_whether_more_follows(store: Store) -> None:
    items = [interaction(created=float(1000 - i)) for i in range(7)]
    await store.interactions.put(items)
    await store.interactions.put([interaction(tenant="other")])
    ids: list[str] = []
    after, more = None, True
    while more:
        page, more = await listed(store, TENANT, limit=3, after=after)
        ids += [item.id for item in page]
        after = ids[-1]
    assert ids == [item.id for item in items]
    newest, more = await listed(store, TENANT, limit=7, order="desc")
    assert ([item.id for item in newest], more) == (ids[::-1], False)
    behind, more = await listed(store, TENANT, limit=2, order="desc", after=ids[3])
    assert ([item.id for item in behind], more) == ([ids[2], ids[1]], True)


async def test_pages_filter_by_model_and_metadata_across_chunks(store: Store) -> None:
    items = [interaction(model="support" if i % 50 else BASE, metadata={"n": str(i % 2), "team": "a"}) for i in range(420)]
    await store.interactions.put(items)
    wanted = [item.id for item in items if item.model == BASE]
    page, more = await listed(store, TENANT, limit=5, model=BASE)
    assert ([item.id for item in page], more) == (wanted[:5], True)
    page, more = await listed(store, TENANT, limit=5, model=BASE, after=wanted[4])
    assert ([item.id for item in page], more) == (wanted[5:], False)
    page, more = await listed(store, TENANT, limit=100, model=BASE, metadata={"n": "1"})
    assert (page, more) == ([], False)
    page, _ = await listed(store, TENANT, limit=100, metadata={"n": "0", "team": "a"}, order="desc")
    assert [item.id for item in page] == [item.id for item in items[::-1] if item.metadata["n"] == "0"][:100]


async def test_a_policys_name_lists_every_version_and_a_versions_only_its_own(store: Store) -> None:
    items = [interaction(model=model) for model in ("support@1", "support@2", "supporter@1")]
    await store.interactions.put(items)
    page, _ = await listed(store, TENANT, limit=5, model="support")
    assert page == items[:2]
    page, _ = await listed(store, TENANT, limit=5, model="support@2")
    assert page == items[1:2]


async def test_a_page_ends_before_it_outgrows_memory_and_a_larger_answer_comes_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ratchet.buffer.interactions.PAGE_BYTES", 100_000)
    items = [interaction(request={"messages": [{"role": "user", "content": "x" * size}]}) for size in (40_000, 40_000, 40_000, 500_000, 1)]
    await store.interactions.put(items)
    pages = []
    after, more = None, True
    while more:
        found, more, after = await store.interactions.scan(TENANT, limit=100, after=after)
        pages.append(found)
    assert pages == [items[:2], items[2:3], items[3:4], items[4:]]


async def test_a_filter_that_matches_little_gives_up_in_time_and_says_where_to_go_on(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ratchet.buffer.interactions.LOOKED_AT", 200)
    items = [interaction() for _ in range(450)] + [interaction(model=BASE)]
    await store.interactions.put(items)
    pages: list[Page] = []
    while not pages or pages[-1].more:
        pages.append(await store.interactions.scan(TENANT, limit=5, model=BASE, after=pages[-1].last if pages else None))
    assert pages == [Page([], True, items[199].id), Page([], True, items[399].id), Page(items[-1:], False, None)]


async def test_a_cursor_that_is_not_the_tenants_gives_an_empty_page(store: Store) -> None:
    mine, other = interaction(), interaction(tenant="other")
    await store.interactions.put([mine, other])
    assert await listed(store, TENANT, limit=5, after=other.id) == ([], False)


async def test_past_its_retention_an_interaction_is_gone_from_every_list(tmp_path: Path) -> None:
    async with embedded_store(tmp_path, StoreConfig(retention_hours=1e-9)) as store:
        items = [interaction(episode_id="ep") for _ in range(5)]
        await store.interactions.put(items)
        async with asyncio.timeout(10):
            while await store.interactions.count():
                pass
        await store.interactions.put([interaction()])
        assert await store.interactions.get(items[0].id, None) is None
        found, _ = await listed(store, TENANT, limit=5)
        assert {item.id for item in found}.isdisjoint(item.id for item in items)


async def test_the_learners_own_tenant_cannot_be_written_as_a_clients(store: Store) -> None:
    with pytest.raises(ValueError, match="add_shadow"):
        await store.interactions.put([interaction(tenant=SHADOW_TENANT)])
