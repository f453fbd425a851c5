"""The demo as a user starts it: a child process, seen by its output, its files and its exit status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import psutil
import pytest

FAKE = {"RATCHET_ENGINES__0__KIND": "fake", "RATCHET_ENGINES__0__LAUNCH": "{}"}
"""The demo's stack on the deterministic engine, which no adapter changes: it must fail cleanly, and fast."""
SMALL = {"RATCHET_POLICIES__ASSISTANT__SCHEDULE__MIN_GROUPS": "2", "RATCHET_POLICIES__ASSISTANT__SHADOW__GROUP_SIZE": "4"}
"""Steps from fewer answers than the demo's: how well it learns is `bench/demo_seeds.py`'s to show."""
RUN = """
import sys
from pathlib import Path
from ratchet.demo.main import Goal, run
out = Path(sys.argv[1])
raise SystemExit(run(out / "asked.json", 0, out, Goal(**GOAL)))
"""


def demo(out: Path, env: dict[str, str], **goal: float) -> subprocess.Popen[str]:
    """Starts the demo with a goal of its own in a session of its own."""
    code = RUN.replace("GOAL", repr(goal))
    return subprocess.Popen(
        [sys.executable, "-c", code, str(out)],
        env={**os.environ, **env, "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def until(stream: IO[str] | None, words: str) -> list[str]:
    """Reads lines until one has `words`; all of them."""
    assert stream is not None
    lines = []
    for line in stream:
        lines.append(line)
        if words in line:
            return lines
    pytest.fail(f"it ended without saying {words!r}:\n{''.join(lines)}")


@pytest.fixture
def family() -> Iterator[set[psutil.Process]]:
    """Processes the test saw alive; none may be left when it is over."""
    seen: set[psutil.Process] = set()
    yield seen
    _, alive = psutil.wait_procs(seen, timeout=45)
    for process in alive:
        process.kill()
    assert not alive


@pytest.mark.slow
def test_a_model_that_does_not_learn_fails_the_demo_with_its_files_written_and_nothing_left(
    tmp_path: Path, family: set[psutil.Process]
) -> None:
    process = demo(tmp_path, FAKE, seconds=20.0)
    said = until(process.stdout, "learning while serving")
    family.update(psutil.Process(process.pid).children(recursive=True))
    assert family
    rest, _ = process.communicate(timeout=200)
    assert process.returncode == 1, rest
    assert "held-out reward did not rise" in rest
    assert any("held-out, before" in line for line in said)
    found = json.loads((tmp_path / "asked.json").read_bytes())
    assert found == json.loads((tmp_path / "demo.json").read_bytes())
    assert (found["requests"]["failed"], found["engine"], found["swaps"]) == (0, "fake", 0)
    assert found["requests"]["streamed"] > 0
    ledger = found["ledger"]
    assert ledger["received"] == ledger["used"] + ledger["pending"] + sum(ledger["rejected"].values()) + ledger["expired"] > 0
    assert (tmp_path / "demo.html").read_text().startswith("<!doctype html>")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 130)])
def test_an_interrupted_demo_stops_everything_it_started(
    number: signal.Signals, status: int, tmp_path: Path, family: set[psutil.Process]
) -> None:
    process = demo(tmp_path, FAKE, seconds=600.0)
    until(process.stdout, "learning while serving")
    family.update(psutil.Process(process.pid).children(recursive=True))
    assert family
    process.send_signal(number)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == status, rest
    assert "Traceback" not in rest


@pytest.mark.slow
def test_a_demo_that_is_killed_leaves_nothing_behind(tmp_path: Path, family: set[psutil.Process]) -> None:
    process = demo(tmp_path, FAKE, seconds=600.0)
    until(process.stdout, "learning while serving")
    family.update(psutil.Process(process.pid).children(recursive=True))
    process.kill()
    process.communicate(timeout=60)


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_real_swaps_under_live_streams_fail_no_request(tmp_path: Path, family: set[psutil.Process]) -> None:
    process = demo(tmp_path, SMALL, reward=0.0, swaps=2, seconds=300.0)
    until(process.stdout, "learning while serving")
    family.update(psutil.Process(process.pid).children(recursive=True))
    rest, _ = process.communicate(timeout=500)
    found = json.loads((tmp_path / "demo.json").read_bytes())
    assert found["requests"]["failed"] == 0, rest
    assert found["swaps"] >= 2
    assert found["engine"] == "vllm"
    assert len(found["swap_seconds"]) == found["swaps"]
    assert all(proof["max_abs_logprob_diff"] < proof["max_abs_diff_from_base"] for proof in found["activation"])
    assert (process.returncode == 0) is (found["heldout"]["after"] > found["heldout"]["before"])
