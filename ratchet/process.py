"""Child processes that never outlive their parent, and ports for them."""

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

from ratchet import _exec
from ratchet.clock import monotonic
from ratchet.errors import RatchetError

PARENT = "RATCHET_PARENT"
"""Tells a child of `spawn` its parent's pid; absent in a process started by hand, which must survive its shell."""
STDERR = 2
POLL_SECONDS = 0.02
LAST_WORDS_SECONDS = 1.0


def die_with_parent(number: int = signal.SIGTERM) -> None:
    """In a child of `spawn`: the parent's death becomes signal `number` instead of SIGKILL, so that the child can drain.

    Call it first in `main`, from the main thread. If the parent is dead already, the process exits here. Started by hand: nothing.
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
    """Starts `argv` in its own session, killed (SIGKILL) when the calling thread ends.

    stdout and stderr are appended to `log`; None: both go where this process's stderr goes. `stdin`: a file descriptor.

    Call it from a thread that lives as long as the child should (the kernel watches the thread, not the process).
    `env` is the whole environment (None: this one's). RatchetError: there is no such program.
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
    """Ends `pid` and all its descendants: SIGTERM to `pid`, up to `grace` seconds, then what is left by force.

    Returns when all are gone (or zombies, which only their parent can reap). An unknown pid is a success.
    """
    try:
        root = psutil.Process(pid)
    except psutil.NoSuchProcess:
        return
    below = _descendants(root)
    _signal([root], signal.SIGTERM)
    await _gone([root], grace)
    # The tree may have grown since; what a dead root left behind is found by the first list.
    left = [*dict.fromkeys([*below, *_descendants(root)])]
    if not _alive(root):
        _signal(left, signal.SIGTERM)
        await _gone(left, min(grace, LAST_WORDS_SECONDS))
    left = [root, *left]
    _signal(left, signal.SIGKILL)
    await _gone(left, LAST_WORDS_SECONDS)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago."""
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


async def _gone(processes: Sequence[psutil.Process], seconds: float) -> None:
    """Waits by looking: psutil's own wait would take the exit status from under asyncio."""
    deadline = monotonic() + seconds
    while any(map(_alive, processes)) and monotonic() < deadline:  # noqa: ASYNC110 (no event tells of a grandchild)
        await asyncio.sleep(POLL_SECONDS)
