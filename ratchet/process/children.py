"""Start child processes that never outlive their parent, end process trees, and find free ports."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import psutil

from ratchet.clock import monotonic
from ratchet.errors import RatchetError
from ratchet.process import _exec

PARENT = "RATCHET_PARENT"
"""Environment variable in which `spawn` gives a child its parent's pid. A process started by hand has none: it must survive its shell."""
STDERR = 2
POLL_SECONDS = 0.02
SHORT_GRACE_SECONDS = 1.0


def die_with_parent(number: int = signal.SIGTERM) -> None:
    """Ask for signal `number` instead of SIGKILL when the parent dies, so that this process can drain first.

    Call it at the start of `main`, in the main thread. If the parent has already died, the process exits here. In a process that
    was not started by `spawn`, it does nothing.
    """
    parent = os.environ.pop(PARENT, None)
    if parent is None:
        return
    _exec.set_death_signal(number)
    if os.getppid() != int(parent):
        sys.exit(1)


async def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
    name: str,
    cwd: Path | None = None,
    stdin: int = DEVNULL,
) -> Process:
    """Start `argv` in a session of its own. The kernel kills it (SIGKILL) when the calling thread ends.

    Call it from a thread that lives as long as the child should: the kernel watches the thread, not the process.

    `env` is the child's whole environment; None: that of this process. stdout and stderr are appended to `log`; None: both go to
    this process's stderr. `stdin` is a file descriptor. Raises RatchetError if there is no such program.
    """
    environ = dict(os.environ if env is None else env)
    if shutil.which(argv[0], path=environ.get("PATH")) is None:
        raise RatchetError(f"{name}: no program {argv[0]!r}")
    environ[PARENT] = str(os.getpid())
    handle = _opened(log) if log is not None else os.dup(STDERR)
    try:
        shim = [sys.executable, "-I", "-S", _exec.__file__, str(os.getpid())]
        return await asyncio.create_subprocess_exec(
            *shim, *argv, env=environ, cwd=cwd, stdin=stdin, stdout=handle, stderr=STDOUT, start_new_session=True
        )
    finally:
        os.close(handle)


def _opened(log: Path) -> int:
    log.parent.mkdir(parents=True, exist_ok=True)
    return os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


async def kill_tree(pid: int, grace: float) -> None:
    """End process `pid` and all its descendants: send SIGTERM to `pid`, wait up to `grace` seconds, then kill what remains.

    Return once all have ended, or are zombies, which only their parent can remove. If there is no such process, return at once.
    """
    try:
        root = psutil.Process(pid)
    except psutil.NoSuchProcess:
        return
    below = _descendants(root)
    _signal([root], signal.SIGTERM)
    await _wait([root], grace)
    # The tree may have grown meanwhile. If the root has died, only the first list still has its descendants.
    remaining = [*dict.fromkeys([*below, *_descendants(root)])]
    if not _alive(root):
        _signal(remaining, signal.SIGTERM)
        await _wait(remaining, min(grace, SHORT_GRACE_SECONDS))
    remaining = [root, *remaining]
    _signal(remaining, signal.SIGKILL)
    await _wait(remaining, SHORT_GRACE_SECONDS)


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that is free now. Another process may take it before you use it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _descendants(root: psutil.Process) -> list[psutil.Process]:
    try:
        return root.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _signal(processes: Iterable[psutil.Process], number: int) -> None:
    for process in processes:
        if _alive(process):
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue


async def _wait(processes: Sequence[psutil.Process], seconds: float) -> None:
    """Wait until all have ended, for at most `seconds`. It polls: psutil's own wait would take the exit status away from asyncio."""
    deadline = monotonic() + seconds
    while any(map(_alive, processes)) and monotonic() < deadline:  # noqa: ASYNC110 (there is no event for a grandchild)
        await asyncio.sleep(POLL_SECONDS)
