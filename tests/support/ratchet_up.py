"""`ratchet up` as a child of a test, from any directory, with its process tree watched from outside."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import yaml

from ratchet.process import kill_tree, spawn

START_SECONDS = 240.0
STOP_SECONDS = 45.0
FAKE: dict[str, Any] = {
    "gateway": {"port": 0, "admin_port": 0},
    "models": {"smollm2": {"path": "smollm2"}},
    "engines": [{"name": "local", "kind": "fake", "model": "smollm2", "launch": {}}],
}
"""All parts real but the engine, which is the deterministic one; no policy, so no learner."""


class Up:
    """A running `ratchet up`: what its ready file says, and its processes."""

    def __init__(self, process: asyncio.subprocess.Process, ready: dict[str, Any], log: Path, data: Path) -> None:
        self.process = process
        self.ready = ready
        self.log = log
        self.data = data
        self.root = psutil.Process(process.pid)

    def tree(self) -> list[psutil.Process]:
        """All its descendants now."""
        return self.root.children(recursive=True)

    def part(self, *words: str) -> psutil.Process:
        """The direct child whose command line holds all `words`."""
        return next(child for child in self.root.children() if all(any(w in a for a in command_line(child)) for w in words))

    async def end(self, number: int) -> int:
        """Send a signal, wait until the process and all its descendants have ended, and return its exit status."""
        tree = self.tree()
        self.process.send_signal(number)
        status = await asyncio.wait_for(self.process.wait(), STOP_SECONDS)
        await until(lambda: not alive(tree), STOP_SECONDS)
        return status


def command_line(process: psutil.Process) -> list[str]:
    """Its command line; nothing of one that has just ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those of `processes` that still run."""
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def written(folder: Path, tree: dict[str, Any]) -> Path:
    """`tree` as a YAML file in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "ratchet.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@asynccontextmanager
async def running(folder: Path, tree: dict[str, Any] | None = None, *, data: Path | None = None) -> AsyncIterator[Up]:
    """`ratchet up` with the configuration `tree` (None: built in, on free ports), its files under `folder`; killed at the end."""
    data = data or folder / "data"
    log = folder / "up.log"
    ready = folder / "ready.json"
    ready.unlink(missing_ok=True)  # one killed by kill -9 did not delete its own
    argv = [sys.executable, "-m", "ratchet", "up", "--data", str(data), "--ready-file", str(ready)]
    argv += ["-c", str(written(folder, tree))] if tree is not None else []
    env = {**os.environ, "RATCHET_GATEWAY__PORT": "0", "RATCHET_GATEWAY__ADMIN_PORT": "0"}
    process = await spawn(argv, env=env, log=log, name="up", cwd=folder)
    try:
        await until(lambda: ready.exists() or process.returncode is not None, START_SECONDS)
        assert process.returncode is None, log.read_text()
        yield Up(process, json.loads(ready.read_text()), log, data)
    finally:
        if process.returncode is None:
            await kill_tree(process.pid, STOP_SECONDS)
            await process.wait()


async def until(condition: Any, seconds: float) -> None:
    """Waits for `condition()` to be true. AssertionError after `seconds`."""

    async def look() -> None:
        while not condition():
            await asyncio.sleep(0.05)

    try:
        await asyncio.wait_for(look(), seconds)
    except TimeoutError:
        raise AssertionError(f"not so after {seconds:.0f} s") from None


async def ratchet(*argv: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Runs one command; status, stdout, stderr."""
    environ = {**os.environ, **(env or {})}
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(sys.executable, "-m", "ratchet", *argv, stdout=pipe, stderr=pipe, cwd=cwd, env=environ)
    out, err = await asyncio.wait_for(child.communicate(), 120)
    assert child.returncode is not None
    return child.returncode, out.decode(), err.decode()


INTERRUPTS = (signal.SIGINT, signal.SIGTERM)
