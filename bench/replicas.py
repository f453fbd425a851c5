"""Real engines with the built-in model, one core each, and their prefix cache counters."""

from __future__ import annotations

import asyncio
import os
import re
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import httpx

from bench.gateways.mock import MODEL
from bench.gateways.target import child
from engines import connect
from engines.base import Machine
from engines.launch import build
from engines.vllm.config import VllmLaunch
from ratchet.clock import monotonic
from ratchet.config import EngineConfig
from ratchet.demo.stack import tail
from ratchet.errors import EngineUnavailable
from ratchet.models import resolve
from ratchet.process import free_port
from ratchet.types import EngineRecord

BLOCK = 32
"""Tokens of a cache block. The CPU build's default of 128 would share only the longest beginnings."""
LAUNCH = VllmLaunch(
    max_loras=1, max_lora_rank=8, max_model_len=1024, max_num_seqs=16, kv_cache_gib=1, threads=1, extra=["--block-size", str(BLOCK)]
)
START_SECONDS = 300.0
POLL_SECONDS = 0.25
COUNTED = re.compile(rb"^vllm:prefix_cache_(queries|hits)_total\{[^}]*\} (\S+)$", re.MULTILINE)


class Counted(NamedTuple):
    """Prompt tokens that were looked up in prefix caches since the engines' start, and those that were found."""

    queries: float
    hits: float

    def since(self, before: Counted) -> float:
        """The hit rate since `before`, 0-1; NaN if nothing was looked up."""
        queries = self.queries - before.queries
        return (self.hits - before.hits) / queries if queries > 0 else float("nan")


def counted(pages: Iterable[bytes]) -> Counted:
    """The sums over the engines' /metrics pages. ValueError: one of them lacks the counters."""
    sums = {b"queries": 0.0, b"hits": 0.0}
    for page in pages:
        found = COUNTED.findall(page)
        if {kind for kind, _ in found} != sums.keys():
            raise ValueError("an engine does not count its prefix cache's queries and hits")
        for kind, value in found:
            sums[kind] += float(value)
    return Counted(sums[b"queries"], sums[b"hits"])


async def ask(engines: Sequence[EngineRecord]) -> Counted:
    """Read the engines' counters."""
    async with httpx.AsyncClient() as http:
        answers = await asyncio.gather(*[http.get(f"{engine.url}/metrics") for engine in engines])
    return counted(answer.raise_for_status().content for answer in answers)


@asynccontextmanager
async def replicas(count: int, folder: Path) -> AsyncIterator[list[EngineRecord]]:
    """Run `count` vLLM servers on the CPU, ready to generate, for as long as the context lasts; their logs are in `folder`."""
    cores = sorted(os.sched_getaffinity(0))
    async with AsyncExitStack() as stack:
        started = [await stack.enter_async_context(_started(f"replica-{i}", cores[i % len(cores)], folder)) for i in range(count)]
        await asyncio.gather(*[_generates(record, process, folder) for record, process in started])
        yield [record for record, _ in started]


@asynccontextmanager
async def _started(name: str, core: int, folder: Path) -> AsyncIterator[tuple[EngineRecord, Process]]:
    config = EngineConfig(name=name, kind="vllm", model=MODEL, launch=LAUNCH)
    planned = build(config, resolve(MODEL), free_port(), machine=Machine(gpu=False, cpus=(core,)), environ=os.environ)
    async with child(planned.argv, _log(folder, name), name, planned.env) as process:
        yield EngineRecord(name, "vllm", MODEL, planned.url, MODEL), process


async def _generates(record: EngineRecord, process: Process, folder: Path) -> None:
    """Wait until the server generates. RuntimeError with the end of its log if it ends or takes too long."""
    deadline, engine = monotonic() + START_SECONDS, connect(record)
    try:
        while True:
            try:
                await engine.models()
                await engine.health()
                return
            except EngineUnavailable as error:
                if process.returncode is not None or monotonic() > deadline:
                    raise RuntimeError(f"{error}: {tail(_log(folder, record.name))}") from None
            await asyncio.sleep(POLL_SECONDS)
    finally:
        await engine.close()


def _log(folder: Path, name: str) -> Path:
    return folder / f"{name}.log"
