from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from ratchet.config import load
from ratchet.demo import stack
from ratchet.demo.main import Goal
from ratchet.demo.task import GATE
from ratchet.errors import RatchetError
from ratchet.process import spawn
from tests.support import demo_runs

READY = {"gateway": "http://127.0.0.1:1", "admin": "http://127.0.0.1:2", "keys": {"client": "c", "operator": "o"}, "pid": 3}


def test_the_demos_yaml_is_valid_and_carries_the_seed(tmp_path: Path) -> None:
    config = load(stack.write_configuration(tmp_path, seed=7), environ={})
    policy = config.policies[stack.POLICY]
    assert policy.seed == 7
    assert (config.gateway.port, config.gateway.admin_port) == (0, 0)
    assert policy.rewards[0].path == "ratchet.demo.task:enthusiastic"


def test_the_gate_gets_its_own_topics_as_frozen_prompts(tmp_path: Path) -> None:
    config = load(stack.write_configuration(tmp_path, seed=0), environ={})
    frozen = config.policies[stack.POLICY].gate.heldout
    assert frozen is not None
    lines = [json.loads(line) for line in Path(frozen).read_text().splitlines()]
    assert len(lines) == len(GATE)
    assert all(GATE[i] in line["messages"][-1]["content"] for i, line in enumerate(lines))


async def test_a_stack_that_stops_before_it_is_ready_says_what_its_log_says(tmp_path: Path) -> None:
    log = tmp_path / "up.log"
    process = await spawn([sys.executable, "-c", "print('no such engine'); raise SystemExit(3)"], log=log, name="up")
    with pytest.raises(RatchetError, match=r"status 3:\nno such engine"):
        await stack.ready(process, tmp_path / "ready.json", log, 30)


async def test_a_stack_that_is_never_ready_is_given_up_and_stopped(tmp_path: Path) -> None:
    log = tmp_path / "up.log"
    process = await spawn(["sleep", "600"], log=log, name="up")
    with pytest.raises(RatchetError, match="not ready after 0 s"):
        await stack.ready(process, tmp_path / "ready.json", log, 0.01)
    await stack.stop(process)
    await stack.stop(process)
    assert process.returncode is not None
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


async def test_the_ready_file_is_read_once_it_is_there(tmp_path: Path) -> None:
    (tmp_path / "ready.json").write_text(json.dumps(READY))
    process = await spawn(["sleep", "600"], log=tmp_path / "up.log", name="up")
    found = await stack.ready(process, tmp_path / "ready.json", tmp_path / "up.log", 30)
    await stack.stop(process)
    assert (found.gateway, found.keys.operator) == ("http://127.0.0.1:1", "o")


def test_the_tail_of_a_log_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert stack.tail(tmp_path / "none.log") == ""


@pytest.mark.parametrize(
    ("goal", "seconds", "why"),
    [
        (Goal(reward=0.9, swaps=2), 10, "measured 0.95 for version 3"),
        (Goal(reward=0.9, swaps=3), 10, ""),
        (Goal(reward=0.99, swaps=2), 10, ""),
        (Goal(swaps=9, versions=3), 10, "3 versions were made"),
        (Goal(swaps=9, seconds=60), 61, "time budget"),
    ],
)
def test_training_stops_at_the_gates_figure_after_enough_swaps_or_when_a_budget_is_over(goal: Goal, seconds: float, why: str) -> None:
    reached = goal.reached(demo_runs.policy(), seconds)
    assert why in reached
    assert bool(reached) is bool(why)
