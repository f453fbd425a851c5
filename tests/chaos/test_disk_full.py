"""Row 9 of reliability.md: the disk under store, spool and adapters is full. Serving works, nothing acknowledged is lost, and all is well
again once there is space.

The disk is a small tmpfs in a mount namespace of the test's own (`unshare`), so that no privilege is needed where the kernel allows
user namespaces. One full disk by default; RATCHET_FAULTS=full for ten.
"""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import pytest

from tests.support.fault_figures import FULL, measured

ROUNDS = 10 if FULL else 1
APART = ("unshare", "--user", "--map-root-user", "--mount", "--kill-child")


@pytest.mark.slow
@pytest.mark.timeout(60 + 60 * ROUNDS)
async def test_a_full_disk_stops_neither_serving_nor_the_truth_and_space_mends_all(tmp_path: Path) -> None:
    argv = [*APART, sys.executable, "-m", "tests.chaos.disk_full", str(tmp_path), str(ROUNDS)]
    process = await asyncio.create_subprocess_exec(*argv, stdout=PIPE, stderr=PIPE)
    told, complaints = await process.communicate()
    assert process.returncode == 0, f"it failed, or this kernel allows no user namespaces: {complaints.decode()}"
    found = json.loads(told)
    measured("%s", in_words(found))
    assert found["errors"] == []
    assert found["missing"] == []
    assert found["stored"] >= found["answers"] > 0
    assert set(found["feedback"]) <= {"202", "503"} and found["impatient"] == 0 and found["balances"]
    for one in found["rounds"]:
        assert one["spooled"] > 0 and one["unrecorded"] > 0
        assert one["feedback_503"] > 0
        assert "No space left on device" in one["adapter"]
    # Of the adapter that had no space nothing is left but the one written after.
    assert len(found["folders"]) == 2 * ROUNDS


def in_words(found: dict[str, Any]) -> str:
    """The figures in words."""
    rounds = found["rounds"]
    spooled, unrecorded, refused = (sum(one[name] for one in rounds) for name in ("spooled", "unrecorded", "feedback_503"))
    return (
        f"{len(rounds)} times: {found['answers']} answers recorded, {len(found['missing'])} missing, {len(found['errors'])} errors; "
        f"{spooled} waited in the spool, {unrecorded} went out as not recorded, feedback {refused} times 503"
    )
