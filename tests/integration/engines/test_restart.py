"""Which adapters an engine is started with that takes them only then, and when it is restarted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engines.reconcile import Wanted
from engines.supervision.restart import STARTS, NeedsRestart, StartAdapters
from ratchet.buffer import Store
from ratchet.config import Config
from tests.support.fake_engine import BASE
from tests.support.registered_adapters import commit, corrupt, publish
from tests.support.stores import embedded_store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with embedded_store(tmp_path) as found:
        yield found


def start_adapters(store: Store, data: Path) -> StartAdapters:
    policy = {"base": BASE, "lora": {"rank": 8}, "schedule": {"max_staleness": 1}}
    config = Config.model_validate({"models": {BASE: {"path": "x"}}, "policies": {"support": policy}})
    return StartAdapters(Wanted(config, data, BASE, store))


async def test_an_engine_is_started_with_what_is_retained_and_with_the_candidates(store: Store, tmp_path: Path) -> None:
    records = [await publish(store, tmp_path, "support", version) for version in (1, 2, 3)]
    records.append(await commit(store, tmp_path, "support", 4))
    chosen = await start_adapters(store, tmp_path).choose()
    assert chosen == {f"support@{record.version}": tmp_path.resolve() / record.path for record in records[1:]}


async def test_an_unsound_candidate_is_left_out(store: Store, tmp_path: Path) -> None:
    await publish(store, tmp_path, "support", 1)
    corrupt(tmp_path, await commit(store, tmp_path, "support", 2))
    assert set(await start_adapters(store, tmp_path).choose()) == {"support@1"}


async def test_it_needs_a_restart_once_it_lacks_an_adapter_that_a_restart_would_bring(store: Store, tmp_path: Path) -> None:
    await publish(store, tmp_path, "support", 1)
    adapters = start_adapters(store, tmp_path)
    await adapters.choose()
    await adapters.check([BASE, "support@1"])
    await commit(store, tmp_path, "support", 2)
    with pytest.raises(NeedsRestart, match="support@2"):
        await adapters.check([BASE, "support@1"])
    await adapters.choose()
    await adapters.check([BASE, "support@1", "support@2"])
    await store.registry.refuse("support", 2, gate="heldout", verdict={})
    await adapters.check([BASE, "support@1", "support@2"])  # one too many is no reason


async def test_a_candidate_that_keeps_it_from_starting_is_refused_after_some_tries(store: Store, tmp_path: Path) -> None:
    await publish(store, tmp_path, "support", 1)
    await commit(store, tmp_path, "support", 2)
    adapters = start_adapters(store, tmp_path)
    for _ in range(STARTS):
        assert set(await adapters.choose()) == {"support@1", "support@2"}
        assert adapters.refused == []
        adapters.start_failed()
    assert set(await adapters.choose()) == {"support@1"}
    assert adapters.refused == ["support@2"]
    await adapters.check([BASE, "support@1"])
    await store.registry.refuse("support", 2, gate="load", verdict={})
    await adapters.choose()
    assert adapters.refused == []


async def test_a_retained_version_is_never_blamed_for_a_failed_start(store: Store, tmp_path: Path) -> None:
    await publish(store, tmp_path, "support", 1)
    adapters = start_adapters(store, tmp_path)
    for _ in range(STARTS + 1):
        assert set(await adapters.choose()) == {"support@1"}
        adapters.start_failed()


async def test_a_candidate_that_it_was_given_and_does_not_list_is_refused(store: Store, tmp_path: Path) -> None:
    await publish(store, tmp_path, "support", 1)
    await commit(store, tmp_path, "support", 2)
    adapters = start_adapters(store, tmp_path)
    await adapters.choose()
    await adapters.check([BASE, "support@1"])
    assert adapters.refused == ["support@2"]


async def test_a_retained_version_that_it_was_given_and_does_not_list_is_said_and_no_reason_to_restart_for_ever(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await publish(store, tmp_path, "support", 1)
    adapters = start_adapters(store, tmp_path)
    await adapters.choose()
    for _ in range(2):
        await adapters.check([BASE])
    assert caplog.text.count("was started with support@1 and does not list it") == 1
