from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engines import connect
from engines.reconcile import Wanted, reconcile
from ratchet.adapters import FILES, WEIGHTS
from ratchet.buffer import Store
from ratchet.config import Config
from tests.support.fake_engine import BASE, bare_adapter, fake_engine
from tests.support.registered_adapters import corrupt, publish
from tests.support.stores import embedded_store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with embedded_store(tmp_path) as found:
        yield found


def adapters(store: Store, data: Path, *, max_staleness: int = 1, shared: Path | None = None) -> Wanted:
    policy = {"base": BASE, "lora": {"rank": 8}, "schedule": {"max_staleness": max_staleness}}
    other = {"base": "other", "lora": {"rank": 8}}
    models = {BASE: {"path": "x"}, "other": {"path": "y"}}
    artifacts = {"url": str(shared) if shared else None}
    config = Config.model_validate({"models": models, "policies": {"support": policy, "far": other}, "artifacts": artifacts})
    return Wanted(config, data, BASE, store)


async def test_the_live_version_and_those_just_before_it_are_wanted(store: Store, tmp_path: Path) -> None:
    records = [await publish(store, tmp_path, "support", v) for v in (1, 2, 3)]
    wanted = await adapters(store, tmp_path).retained()
    assert wanted == {f"support@{r.version}": tmp_path.resolve() / r.path for r in records[1:]}


async def test_a_policy_at_its_base_wants_nothing(store: Store, tmp_path: Path) -> None:
    await store.registry.ensure("support", BASE)
    assert await adapters(store, tmp_path).retained() == {}


async def test_policies_of_another_base_are_not_wanted(store: Store, tmp_path: Path) -> None:
    await publish(store, tmp_path, "far", 1)
    assert await adapters(store, tmp_path).retained() == {}


async def test_a_corrupted_adapter_is_not_restored_and_said(store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, second = [await publish(store, tmp_path, "support", v) for v in (1, 2)]
    corrupt(tmp_path, second)
    assert set(await adapters(store, tmp_path).retained()) == {f"support@{first.version}"}
    assert "support@2 is not restored" in caplog.text


async def test_a_supervisor_with_another_data_directory_fetches_what_it_lacks(store: Store, tmp_path: Path) -> None:
    shared, elsewhere = tmp_path / "shared", tmp_path / "elsewhere"
    shared.mkdir()
    first, second = [await publish(store, tmp_path, "support", v, shared=shared) for v in (1, 2)]
    (shared / second.digest / WEIGHTS).write_bytes(b"half")
    wanted = await adapters(store, elsewhere, shared=shared).retained()
    assert wanted == {"support@1": elsewhere.resolve() / first.path}
    assert {path.name for path in wanted["support@1"].iterdir()} == FILES
    assert [path.name for path in (elsewhere / "adapters" / "support").iterdir() if path.is_dir()] == [Path(first.path).name]


async def test_an_adapter_that_could_not_be_fetched_is_tried_again_and_not_at_each_look(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shared, away = tmp_path / "shared", tmp_path / "away"
    shared.mkdir()
    await publish(store, tmp_path, "support", 1, shared=shared)
    shared.rename(away)
    keeper = adapters(store, tmp_path / "elsewhere", shared=shared)
    assert not await keeper.retained()
    assert not await keeper.retained()
    assert caplog.text.count("support@1 is not restored") == 1
    away.rename(shared)
    monkeypatch.setattr("engines.reconcile.RETRY_SECONDS", 0.0)
    assert set(await keeper.retained()) == {"support@1"}


async def test_an_adapter_is_verified_anew_only_for_another_life_of_the_engine(store: Store, tmp_path: Path) -> None:
    record = await publish(store, tmp_path, "support", 1)
    keeper = adapters(store, tmp_path)
    assert await keeper.retained()
    corrupt(tmp_path, record)
    assert await keeper.retained()
    keeper.forget()
    assert not await keeper.retained()


async def test_the_engine_gets_what_the_registry_retains(store: Store, tmp_path: Path) -> None:
    for version in (1, 2, 3):
        await publish(store, tmp_path, "support", version)
    async with fake_engine() as (fake, record):
        engine = connect(record)
        listed = await reconcile(engine, await adapters(store, tmp_path).retained(), unload=True)
        await engine.close()
    assert listed == {BASE, "support@2", "support@3"}
    assert set(fake.adapters) == {"support@2", "support@3"}


async def test_versions_that_are_not_wanted_go_and_what_is_not_ours_stays(tmp_path: Path) -> None:
    folder = bare_adapter(tmp_path / "a")
    async with fake_engine() as (fake, record):
        engine = connect(record)
        for name in ("support@1", "theirs"):
            await engine.load(name, folder)
        assert await reconcile(engine, {}, unload=True) == {BASE, "theirs"}
        await engine.close()
    assert set(fake.adapters) == {"theirs"}


async def test_an_old_adapter_under_a_wanted_name_is_replaced(tmp_path: Path) -> None:
    old, new = bare_adapter(tmp_path / "old"), bare_adapter(tmp_path / "new")
    async with fake_engine() as (fake, record):
        engine = connect(record)
        await engine.load("support@7", old)
        await reconcile(engine, {"support@7": new}, unload=False)
        await engine.close()
    assert fake.adapters == {"support@7": str(new)}


async def test_an_engine_elsewhere_is_told_the_path_it_sees(tmp_path: Path) -> None:
    seen = bare_adapter(tmp_path / "mounted" / "support" / "7-abc").parent.parent
    async with fake_engine() as (fake, record):
        record.adapters_at = str(seen)
        engine = connect(record)
        await reconcile(engine, {"support@7": Path("data/adapters/support/7-abc")}, unload=False)
        await engine.close()
    assert fake.adapters == {"support@7": str(seen / "support" / "7-abc")}


async def test_reconciling_twice_at_once_is_harmless(tmp_path: Path) -> None:
    wanted = {f"support@{i}": bare_adapter(tmp_path / str(i)) for i in (1, 2)}
    async with fake_engine() as (_, record):
        engine = connect(record)
        results = await asyncio.gather(*(reconcile(engine, wanted, unload=True) for _ in range(3)))
        await engine.close()
    assert results == [{BASE, "support@1", "support@2"}] * 3
