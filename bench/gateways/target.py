"""A gateway under test: where it listens, and the CPU and memory that its processes use."""

from __future__ import annotations

import asyncio
import contextlib
import os
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from bench.gateways.mock import CHAT, MODEL
from ratchet.clock import monotonic
from ratchet.demo.stack import tail
from ratchet.process import kill_tree, spawn

READY_SECONDS = 180.0
POLL_SECONDS = 0.1
LOG_LINES = 3
GRACE_SECONDS = 5.0


@dataclass
class Target:
    """One gateway. `pid` is the root of its processes, `store` that of its store, whose CPU is counted apart.

    Without a pid it is the mock itself, reached directly. `admin` is the URL of Ratchet's control plane; no other gateway has one.
    """

    name: str
    url: str
    pid: int | None = None
    store: int | None = None
    headers: Sequence[str] = ()
    admin: str = ""
    keys: Mapping[str, str] = field(default_factory=dict)

    @property
    def records(self) -> bool:
        """Whether it is Ratchet, which records every answer."""
        return bool(self.admin)

    def cpu(self) -> float:
        """Seconds of user and system time that its processes have used."""
        return sum(map(_cpu, _tree(self.pid)))

    def store_cpu(self) -> float:
        """Seconds of user and system time that its store has used."""
        return sum(map(_cpu, _tree(self.store)))

    def memory(self) -> int:
        """Bytes that its processes hold (their unique set size, so that shared pages are counted once)."""
        return sum(map(_memory, _tree(self.pid)))


def _tree(pid: int | None) -> Iterator[psutil.Process]:
    if pid is None:
        return
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        yield root
        yield from root.children(recursive=True)


def _cpu(process: psutil.Process) -> float:
    with contextlib.suppress(psutil.NoSuchProcess):
        used = process.cpu_times()
        return float(used.user + used.system)
    return 0.0


def _memory(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.Error):
        return int(process.memory_full_info().uss)
    return 0


@asynccontextmanager
async def child(argv: Sequence[str], log: Path, name: str, env: Mapping[str, str] | None = None) -> AsyncIterator[Process]:
    """Run a process, and end it and its children when the context ends; its output goes to `log`."""
    process = await spawn(argv, env={**os.environ, **(env or {})}, log=log, name=name)
    try:
        yield process
    finally:
        await kill_tree(process.pid, GRACE_SECONDS)
        await process.wait()


async def ready(target: Target, process: Process, log: Path, seconds: float = READY_SECONDS) -> Target:
    """Wait until the gateway answers a chat request. RuntimeError with the end of its log if it does not."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    headers = dict(line.split(": ", 1) for line in target.headers)
    deadline, fault = monotonic() + seconds, "it did not listen"
    async with httpx.AsyncClient(headers=headers, timeout=seconds, verify=False) as http:
        while monotonic() < deadline and process.returncode is None:
            with contextlib.suppress(httpx.HTTPError):
                answer = await http.post(target.url + CHAT, json=body)
                if answer.status_code == 200:
                    return target
                fault = f"{answer.status_code}: {answer.text[:200]}"
            await asyncio.sleep(POLL_SECONDS)
    raise RuntimeError(f"{target.name} is not ready ({fault}): {tail(log, LOG_LINES)}")
