"""`python -m learner` from the outside: its exit codes, its lock, its failpoints."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from learner.process import only_one
from ratchet import process
from ratchet.buffer import Store
from ratchet.config import Config
from ratchet.errors import ConfigError
from ratchet.tasks import end
from tests.support.learner_setup import ROOT, configuration, until
from tests.support.stores import POLICY


async def start(config: Config, data: Path) -> asyncio.subprocess.Process:
    path = data / "ratchet.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")), encoding="utf-8")
    argv = [sys.executable, "-m", "learner", "--config", str(path), "--data", str(data)]
    return await process.spawn(argv, log=data / "logs" / "learner.log", name="learner", cwd=ROOT)


async def test_the_learner_writes_its_status_and_stops_when_told(store: Store, model: Path, url: str, tmp_path: Path) -> None:
    child = await start(configuration(model, url), tmp_path)

    async def waiting() -> bool:
        return (await store.registry.status(POLICY)).get("phase") == "waiting"

    await until(waiting, seconds=90)
    child.terminate()
    assert await asyncio.wait_for(child.wait(), 30) == 0


async def test_a_reward_that_is_not_there_ends_it_with_one_line_and_status_two(store: Store, model: Path, url: str, tmp_path: Path) -> None:
    child = await start(configuration(model, url, rewards=[{"path": "tests.support.reward_functions:absent"}]), tmp_path)
    assert await asyncio.wait_for(child.wait(), 90) == 2
    said = (tmp_path / "logs" / "learner.log").read_text(encoding="utf-8")
    assert "reward tests.support.reward_functions:absent" in said and "Traceback" not in said


def test_a_data_directory_has_one_learner(tmp_path: Path) -> None:
    with only_one(tmp_path), pytest.raises(ConfigError, match="another learner"), only_one(tmp_path):
        pass
    with only_one(tmp_path):
        pass


@pytest.mark.parametrize(("armed", "status"), [("a.b", -signal.SIGKILL), ("a.b:2", -signal.SIGKILL), ("a.b:3", 0), ("a.c", 0), ("", 0)])
def test_a_failpoint_kills_at_the_hit_that_was_asked_for(armed: str, status: int) -> None:
    code = "from ratchet import failpoints; failpoints.hit('a.b'); failpoints.hit('a.b')"
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "RATCHET_FAILPOINT": armed}, check=False)
    assert done.returncode == status


async def test_a_task_that_keeps_a_cancellation_to_itself_is_ended_all_the_same() -> None:
    started = asyncio.Event()

    async def stubborn() -> None:
        for _ in range(3):
            try:
                started.set()
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                continue

    task = asyncio.create_task(stubborn())
    await started.wait()
    await asyncio.wait_for(end([task]), 10)
    assert task.done()
