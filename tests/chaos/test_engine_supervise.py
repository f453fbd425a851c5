"""A supervised engine under kills: the fake at each step, the real vLLM once."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from engines import connect
from engines.supervision.supervisor import Supervisor, _guard, _release
from ratchet import process
from ratchet.buffer import Store
from ratchet.clock import monotonic
from ratchet.config import Config
from ratchet.errors import EngineError
from ratchet.types import EngineRecord
from tests.support.fake_engine import BASE, until
from tests.support.registered_adapters import corrupt, publish
from tests.support.stores import embedded_store

STARTED = 30.0
REAL_STARTED = 280.0


def configuration(kind: str = "fake", **launch: Any) -> dict[str, Any]:
    return {
        "models": {BASE: {"path": "smollm2"}},
        "engines": [{"name": "local", "kind": kind, "model": BASE, "launch": {"max_loras": 6, **launch}}],
        "policies": {"support": {"base": BASE}},
    }


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with embedded_store(tmp_path) as found:
        yield found


@asynccontextmanager
async def supervised(store: Store, data: Path, **launch: Any) -> AsyncIterator[Supervisor]:
    """A supervisor in this process."""
    config = Config.model_validate(configuration(**launch))
    supervisor, stop = Supervisor(config, config.engines[0], data, store), asyncio.Event()
    task = asyncio.create_task(supervisor.run(stop))
    try:
        yield supervisor
    finally:
        stop.set()
        await task


@asynccontextmanager
async def program(data: Path, config: dict[str, Any]) -> AsyncIterator[asyncio.subprocess.Process]:
    """`python -m engines`, killed at the end if it still runs."""
    path = data / "ratchet.yaml"
    path.write_text(yaml.safe_dump(config))
    argv = [sys.executable, "-m", "engines", "--config", str(path), "--data", str(data), "--name", "local"]
    child = await process.spawn(argv, log=data / "logs" / "supervisor.log", name="engines")
    try:
        yield child
    finally:
        await process.kill_tree(child.pid, 15)
        await child.wait()


async def state(store: Store) -> EngineRecord | None:
    found = await store.fleet.engines()
    return found[0] if found else None


async def reached(store: Store, wanted: str, *, restarts: int = 0, seconds: float = STARTED) -> EngineRecord:
    async def there() -> bool:
        record = await state(store)
        return record is not None and record.state == wanted and record.restarts >= restarts

    await until(there, seconds=seconds)
    record = await state(store)
    assert record is not None
    return record


def below(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


async def gone(processes: list[psutil.Process], *, seconds: float) -> None:
    async def none_left() -> bool:
        return not [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]

    await until(none_left, seconds=seconds)


def engine_process() -> psutil.Process:
    """The engine itself: the fake, as this process's youngest child of that kind (other tests' gateways may have theirs)."""
    fakes = [p for p in psutil.Process().children() if p.status() != psutil.STATUS_ZOMBIE and "engines.fake" in p.cmdline()]
    return max(fakes, key=psutil.Process.create_time)


async def listed(record: EngineRecord) -> list[str]:
    engine = connect(record)
    try:
        return await engine.models()
    finally:
        await engine.close()


async def test_an_engine_is_ready_once_it_generates_and_holds_its_adapters(store: Store, tmp_path: Path) -> None:
    for version in (1, 2):
        await publish(store, tmp_path, "support", version)
    async with supervised(store, tmp_path, max_num_seqs=3):
        record = await reached(store, "ready")
        assert sorted(await listed(record)) == [BASE, "support@1", "support@2"]
        assert (record.launched, record.slots, record.served_name, record.restarts) == (True, 3, BASE, 0)
    assert (await reached(store, "stopped")).url == record.url
    assert (tmp_path / "logs" / "engine-local.log").read_text().startswith("http://127.0.0.1")


async def test_an_embedder_is_ready_without_adapters_and_is_told_from_engines_that_generate(store: Store, tmp_path: Path) -> None:
    await publish(store, tmp_path, "support", 1)
    async with supervised(store, tmp_path, runner="pooling", max_loras=1):
        record = await reached(store, "ready")
        assert record.pools
        assert await listed(record) == [BASE]


async def test_a_killed_engine_comes_back_with_its_adapters_before_it_is_ready(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engines.supervision.supervisor.FIRST_PAUSE", 0.05)
    await publish(store, tmp_path, "support", 1)
    async with supervised(store, tmp_path):
        await reached(store, "ready")
        for kills in (1, 2):
            engine_process().kill()
            record = await reached(store, "ready", restarts=kills)
            assert record.restarts == kills
            assert await listed(record) == [BASE, "support@1"]


async def test_a_killed_engine_is_down_meanwhile(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engines.supervision.supervisor.FIRST_PAUSE", 60.0)
    async with supervised(store, tmp_path):
        await reached(store, "ready")
        engine_process().kill()
        await reached(store, "down", restarts=1)
    await reached(store, "stopped")


async def test_a_version_published_while_it_was_away_or_running_is_loaded(store: Store, tmp_path: Path) -> None:
    async with supervised(store, tmp_path):
        record = await reached(store, "ready")
        await publish(store, tmp_path, "support", 1)

        async def loaded() -> bool:
            return "support@1" in await listed(record)

        await until(loaded)


async def test_a_corrupted_adapter_never_reaches_the_engine(store: Store, tmp_path: Path) -> None:
    await publish(store, tmp_path, "support", 1)
    corrupt(tmp_path, await publish(store, tmp_path, "support", 2))
    async with supervised(store, tmp_path):
        assert await listed(await reached(store, "ready")) == [BASE, "support@1"]


async def test_an_engine_that_cannot_generate_is_never_ready_and_waits_longer_each_time(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engines.supervision.supervisor.FIRST_PAUSE", 0.25)
    states: list[tuple[str, float]] = []
    put = store.fleet.put

    async def noted(record: EngineRecord) -> None:
        states.append((record.state, monotonic()))
        await put(record)

    monkeypatch.setattr(store.fleet, "put", noted)
    async with supervised(store, tmp_path, extra=["--refuse", "500"]):
        await reached(store, "down", restarts=3)
    assert [state for state, _ in states] == ["starting", "down"] * 3 + ["stopped"]
    pauses = [states[n + 1][1] - states[n][1] for n in (1, 3)]
    assert pauses[0] >= 0.25 and pauses[1] >= 0.5


async def test_a_hung_engine_is_restarted(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engines.supervision.supervisor.PROBE_SECONDS", 0.0)
    monkeypatch.setattr("engines.supervision.supervisor.WATCH_SECONDS", 0.05)
    monkeypatch.setattr("engines.supervision.supervisor.GRACE_SECONDS", 0.5)  # it hears no SIGTERM
    monkeypatch.setattr("engines.openai.proof.SECONDS", 0.5)
    async with supervised(store, tmp_path):
        await reached(store, "ready")
        engine_process().suspend()
        monkeypatch.setattr("engines.vllm.control.ASK_SECONDS", 0.5)
        assert (await reached(store, "ready", restarts=1)).restarts == 1


async def test_an_adapter_forgotten_by_the_engine_is_loaded_again(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engines.supervision.supervisor.WATCH_SECONDS", 0.05)
    await publish(store, tmp_path, "support", 1)
    async with supervised(store, tmp_path):
        record = await reached(store, "ready")
        engine = connect(record)
        await engine.unload("support@1")

        async def loaded() -> bool:
            return "support@1" in await engine.models()

        await until(loaded)
        await engine.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_told_to_stop_the_program_leaves_no_process(store: Store, tmp_path: Path, number: int) -> None:
    async with program(tmp_path, configuration()) as child:
        await reached(store, "ready")
        tree = below(child.pid)
        assert tree
        os.kill(child.pid, number)
        assert await asyncio.wait_for(child.wait(), 15) == 0
        await gone(tree, seconds=1)
    await reached(store, "stopped")


async def test_told_to_stop_while_it_starts_the_program_leaves_no_process(store: Store, tmp_path: Path) -> None:
    async with program(tmp_path, configuration(extra=["--hang-after", "0"])) as child:
        await reached(store, "starting")

        async def launched() -> bool:
            return bool(below(child.pid))

        await until(launched)
        tree = below(child.pid)
        child.terminate()
        assert await asyncio.wait_for(child.wait(), 15) == 0
        await gone(tree, seconds=1)


async def test_killed_by_force_the_program_takes_its_engine_along(store: Store, tmp_path: Path) -> None:
    async with program(tmp_path, configuration()) as child:
        await reached(store, "ready")
        tree = below(child.pid)
        child.kill()
        await gone(tree, seconds=5)


async def test_an_engine_that_is_not_in_the_configuration_is_a_usage_error(store: Store, tmp_path: Path) -> None:
    config = configuration()
    config["engines"][0]["name"] = "other"
    async with program(tmp_path, config) as child:
        assert await asyncio.wait_for(child.wait(), 20) == 2
    assert "no engine named 'local'" in (tmp_path / "logs" / "supervisor.log").read_text()


async def test_an_engine_that_dies_by_itself_takes_its_own_children_along(tmp_path: Path) -> None:
    family = (
        "import subprocess, sys; subprocess.Popen(['sleep', '600'], stdout=subprocess.DEVNULL); print('up', flush=True); sys.stdin.read()"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", family, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, start_new_session=True
    )
    assert parent.stdout is not None
    assert await parent.stdout.readline() == b"up\n"
    left = below(parent.pid)
    guarding = await _guard(parent.pid)
    parent.kill()
    await parent.wait()
    assert [p for p in left if p.is_running()]
    await _release(guarding)
    await gone(left, seconds=5)


@pytest.mark.real
@pytest.mark.slow
async def test_the_real_engine_comes_back_when_it_is_killed_and_told_to_stop_is_gone_in_time(store: Store, tmp_path: Path) -> None:
    await publish(store, tmp_path, "support", 1)
    config = configuration("vllm", max_model_len=256, max_num_seqs=2, kv_cache_gib=1)
    async with program(tmp_path, config) as child:
        record = await reached(store, "ready", seconds=REAL_STARTED)
        assert await listed(record) == [BASE, "support@1"]
        first = below(child.pid)
        server = next(p for p in first if "vllm.entrypoints.openai.api_server" in p.cmdline())
        assert server.children()  # its EngineCore
        server.kill()
        await gone(first, seconds=15)
        record = await reached(store, "ready", restarts=1, seconds=REAL_STARTED)
        assert await listed(record) == [BASE, "support@1"]
        second = below(child.pid)
        child.terminate()
        assert await asyncio.wait_for(child.wait(), 15) == 0
        await gone(second, seconds=1)
        with pytest.raises(EngineError):
            await listed(record)
