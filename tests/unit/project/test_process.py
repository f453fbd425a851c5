"""ratchet.process: children that never outlive their parent."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import psutil
import pytest

from ratchet.errors import RatchetError
from ratchet.process import free_port, kill_tree, spawn

DEADLINE = 20.0
SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
NESTED = (
    f"import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', {SLEEPER!r}]); print(child.pid, flush=True); child.wait()"
)
PARENT_OF_SLEEPER = """
import asyncio, pathlib, sys
from ratchet.process import spawn
async def main():
    child = await spawn([sys.executable, "-c", sys.argv[2]], log=pathlib.Path(sys.argv[1]), name="child")
    print(child.pid, flush=True)
    await child.wait()
asyncio.run(main())
"""
GRACEFUL = """
import signal, sys, time
from ratchet.process import die_with_parent
die_with_parent()
def leave(*_):
    print("drained", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
print("up", flush=True)
time.sleep(600)
"""


async def read_until(log: Path, word: str) -> str:
    async def look() -> str:
        while not log.exists() or word not in log.read_text():
            await asyncio.sleep(0.01)
        return log.read_text()

    return await asyncio.wait_for(look(), DEADLINE)


async def ended(pid: int) -> None:
    async def look() -> None:
        while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.01)

    await asyncio.wait_for(look(), DEADLINE)


async def orphan(log: Path, program: str) -> int:
    """Starts a parent with one child, waits until the child is up, kills the parent with SIGKILL; the child's pid."""
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", PARENT_OF_SLEEPER, str(log), program, stdout=PIPE)
    assert parent.stdout is not None
    child = int(await asyncio.wait_for(parent.stdout.readline(), DEADLINE))
    await read_until(log, "up")
    parent.send_signal(signal.SIGKILL)
    await asyncio.wait_for(parent.communicate(), DEADLINE)
    return child


async def test_a_child_writes_to_its_log_and_has_its_own_session(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "child.log"
    child = await spawn([sys.executable, "-c", "import os; print(os.getsid(0) == os.getpid())"], log=log, name="child")
    assert await asyncio.wait_for(child.wait(), DEADLINE) == 0
    assert log.read_text() == "True\n"
    assert log.stat().st_mode & 0o777 == 0o600


async def test_a_child_gets_the_environment_and_the_directory_given(tmp_path: Path) -> None:
    log = tmp_path / "log"
    env = {"PATH": os.environ["PATH"], "COLOUR": "green"}
    program = "import os; print(os.environ['COLOUR'], os.getcwd(), 'HOME' in os.environ)"
    child = await spawn([sys.executable, "-c", program], env=env, log=log, name="child", cwd=tmp_path)
    await asyncio.wait_for(child.wait(), DEADLINE)
    assert log.read_text().split() == ["green", str(tmp_path), "False"]


async def test_a_missing_program_is_named_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(RatchetError, match="store: no program 'no-such-program'"):
        await spawn(["no-such-program"], log=tmp_path / "log", name="store")


async def test_a_child_dies_when_its_parent_is_killed(tmp_path: Path) -> None:
    await ended(await orphan(tmp_path / "log", SLEEPER))


async def test_a_child_that_ignores_sigterm_dies_when_its_parent_is_killed(tmp_path: Path) -> None:
    await ended(await orphan(tmp_path / "log", STUBBORN))


async def test_a_child_that_wants_to_drain_does_so_when_its_parent_is_killed(tmp_path: Path) -> None:
    child = await orphan(tmp_path / "log", GRACEFUL)
    await ended(child)
    assert await read_until(tmp_path / "log", "drained")


async def test_a_process_started_by_hand_is_not_bound_to_its_parent() -> None:
    program = "import os; from ratchet.process import die_with_parent; die_with_parent(); print('lives')"
    env = {k: v for k, v in os.environ.items() if k != "RATCHET_PARENT"}
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=PIPE, env=env)
    assert (await asyncio.wait_for(child.communicate(), DEADLINE))[0] == b"lives\n"


async def test_a_child_whose_parent_has_ended_already_exits_at_once() -> None:
    program = "from ratchet.process import die_with_parent; die_with_parent(); print('lives')"
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=PIPE, env={**os.environ, "RATCHET_PARENT": "1"})
    assert (await asyncio.wait_for(child.communicate(), DEADLINE))[0] == b""
    assert child.returncode == 1


async def test_kill_tree_ends_descendants_too(tmp_path: Path) -> None:
    child = await spawn([sys.executable, "-c", NESTED], log=tmp_path / "log", name="nested")
    below = int((await read_until(tmp_path / "log", "up")).split()[0])
    await kill_tree(child.pid, grace=5)
    await ended(below)
    assert await asyncio.wait_for(child.wait(), DEADLINE) == -signal.SIGTERM


async def test_kill_tree_uses_force_after_its_grace(tmp_path: Path) -> None:
    child = await spawn([sys.executable, "-c", STUBBORN], log=tmp_path / "log", name="stubborn")
    await read_until(tmp_path / "log", "up")
    await kill_tree(child.pid, grace=0.2)
    assert await asyncio.wait_for(child.wait(), DEADLINE) == -signal.SIGKILL


async def test_kill_tree_of_a_dead_process_is_a_success(tmp_path: Path) -> None:
    child = await spawn([sys.executable, "-c", ""], log=tmp_path / "log", name="child")
    await asyncio.wait_for(child.wait(), DEADLINE)
    await kill_tree(child.pid, grace=1)


def test_a_free_port_can_be_bound() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", free_port()))
