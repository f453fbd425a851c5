"""The figures of one gateway in one round: CPU a request and a chunk, and the time to the first byte under an open loop."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from bench.gateways import mock
from bench.gateways.figures import Samples, percentile, rotated
from bench.gateways.mock import Mock, Result, request_body
from bench.gateways.ours import read_back, recorded, spooled
from bench.gateways.target import Target

SHORT, LONG = 8, 80
"""Tokens of an answer, one a chunk."""
STEP_US = 5000
"""Microseconds between two tokens where chunks are to arrive one by one."""
STREAMS = 32
"""Concurrent streams where the cost of a chunk is measured."""
WARM = 0.2
"""Length of the unmeasured load before each measurement, as a share of its seconds."""
PATIENCE = 60.0
"""Seconds that requests under way at the end are waited for."""
OPEN_LOOPS = ((500, SHORT), (100, LONG))
"""Requests a second, and tokens of their answers."""
HEADROOM = 0.8
"""Share of a core above which an open loop would only build a queue."""
DIRECT = "direct"


class Case(NamedTuple):
    """One closed loop: what is asked for, how fast the mock sends its tokens, and over how many connections."""

    figure: str
    tokens: int
    stream: bool
    step: int
    connections: int


PACED = Case("paced", SHORT, True, STEP_US, STREAMS)
PACED_LONG = Case("long", LONG, True, STEP_US, STREAMS)
CASES = (
    Case("c8", SHORT, True, 0, 8),
    Case("c32", SHORT, True, 0, 32),
    Case("whole", SHORT, False, 0, 8),
    PACED,
    PACED_LONG,
)
CHUNK = "chunk"
"""CPU us a chunk: what PACED_LONG costs more than PACED, for each further token."""


@dataclass
class Faults:
    """What went wrong, by gateway, and what the store proves about Ratchet's recorder."""

    errors: dict[str, int] = field(default_factory=dict)
    leaks: int = 0
    answered: int = 0
    recorded: int = 0
    read_back: int = 0
    spooled: int = 0
    """Recorded answers that the store did not take in time, so that they were spooled to disk first."""
    notes: list[str] = field(default_factory=list)

    def count(self, name: str, result: Result) -> None:
        found = sum(result.errors.values())
        if found:
            self.errors[name] = self.errors.get(name, 0) + found

    @property
    def every_one_recorded(self) -> bool:
        return self.answered == self.recorded and self.read_back > 0

    @property
    def sound(self) -> bool:
        """Whether no request failed, every answer was recorded, and no client saw what it had not asked for."""
        return self.every_one_recorded and not self.errors and not self.leaks


class Bench:
    """Runs loads and collects samples: the mock, the folder of the request bodies, and the seconds of one measurement."""

    def __init__(self, engine: Mock, folder: Path, seconds: float) -> None:
        self.samples, self.faults = Samples(), Faults()
        self._engine, self._folder, self._seconds = engine, folder, seconds

    async def round(self, target: Target) -> None:
        """Measure all figures of one gateway once."""
        if target.pid is not None:
            for case in CASES:
                await self.case(target, case)
            self.chunk(target)
        for rate, tokens in OPEN_LOOPS:
            await self._open(target, rate, tokens)

    async def side_by_side(self, targets: Sequence[Target], cases: Iterable[Case], turn: int) -> None:
        """Measure one round of several gateways, case by case, so that the measurements that are compared lie close in time."""
        by_name = {target.name: target for target in targets}
        for case in cases:
            for name in rotated(list(by_name), turn):
                await self.case(by_name[name], case)
        for target in targets:
            self.chunk(target)

    async def case(self, target: Target, case: Case) -> float:
        """Measure one closed loop; CPU us a request."""
        self._engine.step(case.step)
        body = request_body(self._folder, tokens=case.tokens, stream=case.stream)
        return await self.cost(target, body, case.connections, case.figure)

    def chunk(self, target: Target) -> None:
        """Add the cost of a chunk, from the last samples of PACED and PACED_LONG."""
        few, many = (self.samples.of_figure(target.name, case.figure) for case in (PACED, PACED_LONG))
        self.samples.add(target.name, CHUNK, (many[-1] - few[-1]) / (LONG - SHORT) if few and many else math.nan)

    async def cost(self, target: Target, body: Path, connections: int, figure: str) -> float:
        """CPU us a request in a closed loop; the store's CPU and the rate become samples too. NaN if nothing was answered."""
        await self._load(target, body, c=connections, d=self._seconds * WARM)
        result, used, stored = await self._load(target, body, c=connections, d=self._seconds)
        cost = used / result.ok * 1e6 if result.ok else math.nan
        self.samples.add(target.name, figure, cost)
        self.samples.add(target.name, f"{figure} rate", result.ok / result.seconds)
        if target.store is not None:
            self.samples.add(target.name, f"{figure} store", stored / result.ok * 1e6 if result.ok else math.nan)
        return cost

    async def _open(self, target: Target, rate: int, tokens: int) -> None:
        figure = f"{rate}x{tokens}"
        needed = self.samples.median(target.name, (PACED if tokens == SHORT else PACED_LONG).figure) * rate / 1e6
        if target.pid is not None and not needed < HEADROOM:
            note = f"{target.name}: {rate} requests/s of {tokens} chunks would take {needed:.1f} cores; its open loop was not run"
            self.faults.notes += [note] if note not in self.faults.notes else []
            self.samples.add(target.name, f"{figure} p50", math.nan)
            self.samples.add(target.name, f"{figure} p99", math.nan)
            return
        self._engine.step(STEP_US)
        result, _, _ = await self._load(target, request_body(self._folder, tokens=tokens), r=rate, d=self._seconds * 2)
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            self.samples.add(target.name, f"{figure} {name}", percentile(result.ttft_us, share) / 1000)

    async def _load(self, target: Target, body: Path, **options: float) -> tuple[Result, float, float]:
        """Run the load once; its result, and the seconds of CPU that the gateway and its store used for it.

        Where the gateway is Ratchet, count that every answer was recorded, and read one back.
        """
        before, over = (await recorded(target), await spooled(target)) if target.records else (0, 0)
        cpu, store = target.cpu(), target.store_cpu()
        result = await mock.load(target.url, body, target.headers, w=PATIENCE, **options)
        used, stored = target.cpu() - cpu, target.store_cpu() - store
        self.faults.count(target.name, result)
        if target.records:
            self.faults.leaks += result.leaks
            self.faults.spooled += await spooled(target) - over
            self.faults.answered += result.ok
            self.faults.recorded += await recorded(target, before + result.ok) - before
            self.faults.read_back += bool(result.last_id and await read_back(target, result.last_id))
        return result, used, stored
