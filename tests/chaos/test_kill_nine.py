"""kill -9 of the gateway, the store and the learner under load: what a client saw acknowledged is in the store.

A few kills of each by default, in random order; RATCHET_FAULTS=full for the counts of the promise.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median

import pytest

from bench.durability import fake_configuration, measure, text
from bench.processes import ROLES
from tests.support.fault_figures import FULL, measured

KILLS = 20 if FULL else 5


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_what_was_acknowledged_outlives_kills_under_load(tmp_path: Path) -> None:
    report = await measure(fake_configuration(tmp_path), tmp_path, dict.fromkeys(ROLES, KILLS))
    measured("%s", "; ".join(told(role, times) for role, times in report.recovery.items()))
    measured("%s", text(report).rpartition("\n")[2])
    assert report.answers > 0 and report.rewards > 0
    assert report.missing_answers == []
    assert report.missing_rewards == []
    assert report.unbalanced == []
    assert {role: len(times) for role, times in report.recovery.items()} == dict.fromkeys(ROLES, KILLS)


def told(role: str, times: list[float]) -> str:
    """How soon after each kill something was acknowledged again."""
    return f"{role} {len(times)} times: acknowledged again after {median(times):.2f} s, at most {max(times):.2f} s"
