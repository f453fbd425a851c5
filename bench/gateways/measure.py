"""One gateway's figures in one round: CPU a request and a chunk, time to the first byte under an open loop."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from bench.gateways import mock
from bench.gateways.figures import Samples, percentile
from bench.gateways.mock import Mock, Result, ask
from bench.gateways.ours import NAME, read_back, recorded, spooled
from bench.gateways.target import Target

SHORT, LONG = 8, 80
"""Tokens of an answer, one a chunk."""
STEP_US = 5000
"""Time between two tokens where chunks are to arrive one by one."""
STREAMS = 32
"""Concurrent streams where the cost of a chunk is measured."""
WARM = 0.2
"""Share of a measurement's time that goes before it."""
PATIENCE = 60.0
"""Seconds that requests under way at the end are waited for."""
OPEN_LOOPS = ((500, SHORT), (100, LONG))
"""Requests a second, and tokens of their answers."""
HEADROOM = 0.8
"""Share of a core above which an open loop would only queue."""
DIRECT = "direct"


@dataclass
class Faults:
    """What went wrong, by gateway; and what the recorder proved."""

    errors: dict[str, int] = field(default_factory=dict)
    leaks: int = 0
    asked: int = 0
    recorded: int = 0
    read_back: int = 0
    spooled: int = 0
    """Of them, those that the store did not take in time, so that they went over the disk."""
    notes: list[str] = field(default_factory=list)

    def count(self, name: str, result: Result) -> None:
        found = sum(result.errors.values())
        if found:
            self.errors[name] = self.errors.get(name, 0) + found

    @property
    def every_one_recorded(self) -> bool:
        return self.asked == self.recorded and self.read_back > 0


class Bench:
    """What measures: the mock, the folder of request bodies, the seconds a measurement takes."""

    def __init__(self, engine: Mock, folder: Path, seconds: float) -> None:
        self.samples, self.faults = Samples(), Faults()
        self._engine, self._folder, self._seconds = engine, folder, seconds

    async def round(self, target: Target) -> None:
        """All figures of one gateway, once."""
        if target.pid is not None:
            await self._closed(target)
        for rate, tokens in OPEN_LOOPS:
            await self._open(target, rate, tokens)

    async def cost(self, target: Target, body: Path, connections: int, figure: str) -> float:
        """Microseconds of CPU a request in a closed loop; the store's and the rate beside it. NaN if nothing was answered."""
        await self._load(target, body, c=connections, d=self._seconds * WARM)
        result, used, stored = await self._load(target, body, c=connections, d=self._seconds)
        if not result.ok:
            return math.nan
        self.samples.add(target.name, figure, used / result.ok * 1e6)
        self.samples.add(target.name, f"{figure} rate", result.ok / result.seconds)
        if target.store is not None:
            self.samples.add(target.name, f"{figure} store", stored / result.ok * 1e6)
        return used / result.ok * 1e6

    async def _closed(self, target: Target) -> None:
        short, long = ask(self._folder, tokens=SHORT), ask(self._folder, tokens=LONG)
        self._engine.step(0)
        await self.cost(target, short, 8, "c8")
        await self.cost(target, short, 32, "c32")
        await self.cost(target, ask(self._folder, tokens=SHORT, stream=False), 8, "whole")
        self._engine.step(STEP_US)
        few = await self.cost(target, short, STREAMS, "paced")
        many = await self.cost(target, long, STREAMS, "long")
        self.samples.add(target.name, "chunk", (many - few) / (LONG - SHORT))

    async def _open(self, target: Target, rate: int, tokens: int) -> None:
        figure = f"{rate}x{tokens}"
        needed = self.samples.median(target.name, "paced" if tokens == SHORT else "long") * rate / 1e6
        if target.pid is not None and not needed < HEADROOM:
            note = f"{target.name}: {rate} requests/s of {tokens} chunks would take {needed:.1f} cores; its open loop was not run"
            self.faults.notes += [note] if note not in self.faults.notes else []
            self.samples.add(target.name, f"{figure} p50", math.nan)
            self.samples.add(target.name, f"{figure} p99", math.nan)
            return
        self._engine.step(STEP_US)
        result, _, _ = await self._load(target, ask(self._folder, tokens=tokens), r=rate, d=self._seconds * 2)
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            self.samples.add(target.name, f"{figure} {name}", percentile(result.ttft_us, share) / 1000)

    async def _load(self, target: Target, body: Path, **options: float) -> tuple[Result, float, float]:
        """One run of the load, and the seconds of CPU that the gateway and its store took for it.

        Of ours it is proved that each answer was recorded, and one is read back.
        """
        ours = target.name.startswith(NAME)
        before, over = (await recorded(target), await spooled(target)) if ours else (0, 0)
        cpu, store = target.cpu(), target.store_cpu()
        result = await mock.load(target.url, body, target.headers, w=PATIENCE, **options)
        used, stored = target.cpu() - cpu, target.store_cpu() - store
        self.faults.count(target.name, result)
        if ours:
            self.faults.leaks += result.leaks
            self.faults.spooled += await spooled(target) - over
            self.faults.asked += result.ok
            self.faults.recorded += await recorded(target, before + result.ok) - before
            self.faults.read_back += bool(result.last_id and await read_back(target, result.last_id))
        return result, used, stored
