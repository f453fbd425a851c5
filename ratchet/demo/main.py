"""The demo from start to verdict."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx
from rich.console import Console

from ratchet.clock import monotonic
from ratchet.demo import heldout, live, stack, traffic
from ratchet.demo.admin import Admin, Policy
from ratchet.demo.client import Client
from ratchet.demo.exchange import Log
from ratchet.demo.report import summary
from ratchet.demo.report.outcome import Outcome, faults
from ratchet.errors import RatchetError

REFRESH_SECONDS = 0.5
INTERRUPTED = 130
T = TypeVar("T")


@dataclass(frozen=True)
class Goal:
    """When training stops: the gate measured `reward` for the live version after `swaps` swaps, or `versions` versions exist,
    or the run has taken `seconds`."""

    reward: float = 0.9
    swaps: int = 4
    versions: int = 24
    seconds: float = 480.0

    def reached(self, policy: Policy, seconds: float) -> str:
        """Return why training should stop now; empty if it should go on."""
        score = policy.gate_reward
        if score is not None and score >= self.reward and len(policy.windows) >= self.swaps:
            return f"The gate measured {score:.2f} for version {policy.live}."
        if len(policy.learned) >= self.versions:
            return f"{len(policy.learned)} versions were made."
        return f"{seconds:.0f} s of the time budget were over." if seconds >= self.seconds else ""


def run(json: Path | None, seed: int, out: Path, goal: Goal | None = None) -> int:
    """Run the demo; see `ratchet.demo.run`. `goal` says when its training stops."""
    console = Console()
    errors = Console(stderr=True)
    try:
        outcome = asyncio.run(_interruptible(_demo(seed, out, console, goal or Goal())))
    except (KeyboardInterrupt, asyncio.CancelledError):
        errors.print("interrupted; everything the demo started has been stopped")
        return INTERRUPTED
    except (RatchetError, httpx.HTTPError, OSError) as error:
        errors.print(f"ratchet demo: {error}", markup=False, highlight=False)
        return 1
    found = faults(outcome)
    summary.show(outcome, found, summary.write(outcome, found, json, out), console)
    return 1 if found else 0


async def _interruptible(work: Awaitable[T]) -> T:
    """Do `work`, which SIGTERM cancels as Ctrl-C does, so that its children are stopped."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await work


async def _demo(seed: int, out: Path, console: Console, goal: Goal) -> Outcome:
    started = monotonic()
    folder = _folder(seed, out)
    console.print(f"Starting the store, the engine, the gateway and the learner; logs under {folder}", highlight=False, soft_wrap=True)
    config = stack.write_configuration(folder, seed)
    async with stack.running(config, folder / "data", folder / "up.log") as ready:
        log = Log()
        async with Client(ready.gateway, ready.keys.client, log) as client, Admin(ready.admin, ready.keys.operator) as admin:
            with live.display(console) as display:
                return await _Run(client, admin, display, seed, started, goal).outcome()


def _folder(seed: int, out: Path) -> Path:
    """Make a folder for this run: the versions of an earlier run must not count as its own."""
    out.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f"seed{seed}-", dir=out)).resolve()


@dataclass
class _Run:
    """One run against a running stack."""

    client: Client
    admin: Admin
    display: live.Display
    seed: int
    started: float
    goal: Goal

    @property
    def seconds(self) -> float:
        return monotonic() - self.started

    async def outcome(self) -> Outcome:
        """Measure, train under traffic, and measure again. httpx.HTTPError if the admin API fails."""
        policy = await self.admin.policy(stack.POLICY)
        before = await self._watched("held-out, before", heldout.measure(self.client, f"{policy.name}@0", self.seed))
        async with traffic.users(self.client, policy.name, self.seed, traffic.Pace()):
            stopped = await self._train()
        # The version that is live now is pinned, so that one that the learner publishes meanwhile is not measured.
        policy = await self.admin.policy(stack.POLICY)
        after = await self._watched("held-out, after", heldout.measure(self.client, f"{policy.name}@{policy.live}", self.seed))
        return Outcome(
            model=policy.base,
            engine=await self.admin.engine_kind(),
            seed=self.seed,
            policy=policy,
            before=before,
            after=after,
            log=self.client.log,
            ledger=await self.admin.ledger(),
            held=await self.admin.held(),
            seconds=self.seconds,
            stopped=stopped,
        )

    async def _train(self) -> str:
        while True:
            policy = await self.admin.policy(stack.POLICY)
            self._show("learning while serving", policy)
            stopped = self.goal.reached(policy, self.seconds)
            if stopped:
                return stopped
            await asyncio.sleep(REFRESH_SECONDS)

    async def _watched(self, stage: str, work: Awaitable[T]) -> T:
        """Do `work`, refreshing the display meanwhile."""
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                self._show(stage, await self.admin.policy(stack.POLICY))
                await asyncio.wait([task], timeout=REFRESH_SECONDS)
            return task.result()
        finally:
            task.cancel()

    def _show(self, stage: str, policy: Policy) -> None:
        self.display.show(live.view(self.seconds, stage, self.client.log, policy))
