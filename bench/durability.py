"""Kill parts of a running stack under load: `python bench/durability.py --kills 20`. Writes docs/benchmarks.md.

Eight users stream, ask and rate without pause while the gateway, the store and the learner are killed with `kill -9` at random
times. Everything that a client saw acknowledged (`[DONE]`, a complete 200, a 202) must be in the store afterwards, once the spool
is drained, and the ledger must balance after each kill. Exit status 0 only if nothing is missing.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import section
from bench.processes import ROLES, find
from ratchet.buffer import Store, open_store
from ratchet.clock import monotonic
from ratchet.config import StoreConfig
from ratchet.demo import stack
from ratchet.demo.client import Client
from ratchet.demo.exchange import Exchange, Log
from ratchet.demo.task import TRAIN, enthusiastic, messages
from ratchet.errors import StoreError

USERS = 8
RECOVERY_SECONDS = 90.0
SETTLE_SECONDS = 20.0
POLL_SECONDS = 0.02
PAUSE_SECONDS = 0.05
GROUP = 4


@dataclass
class Report:
    """What was acknowledged, what of it is missing, and how many seconds after each kill the stack acknowledged a request again."""

    kills: dict[str, int] = field(default_factory=dict)
    recovery: dict[str, list[float]] = field(default_factory=dict)
    answers: int = 0
    rewards: int = 0
    interrupted: int = 0
    missing_answers: list[str] = field(default_factory=list)
    missing_rewards: list[str] = field(default_factory=list)
    unbalanced: list[str] = field(default_factory=list)
    ledger: dict[str, Any] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        return not (self.missing_answers or self.missing_rewards or self.unbalanced)


@dataclass
class Load:
    """Users that never pause: each turn asks for one streamed answer, a streamed group or a whole answer, and rates what was complete."""

    client: Client
    model: str
    acknowledged: dict[str, Exchange] = field(default_factory=dict)
    rewards: dict[str, str] = field(default_factory=dict)
    progress: asyncio.Event = field(default_factory=asyncio.Event)
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def user(self, rng: random.Random) -> None:
        for turn in count():
            if self.stop.is_set():
                return
            exchange = await self._ask(turn, rng)
            if exchange.error is not None:
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            self.acknowledged[exchange.id] = exchange
            self.progress.set()
            await self._rate(exchange)

    async def _ask(self, turn: int, rng: random.Random) -> Exchange:
        topic = rng.choice(TRAIN)
        if turn % 3 == 0:
            return await self.client.stream(self.model, topic)
        if turn % 3 == 1:
            return await self.client.stream(self.model, topic, GROUP)
        return await self.client.ask(self.model, topic, 1, rng.randrange(2**31), store=True)

    async def _rate(self, exchange: Exchange) -> None:
        for choice, text in sorted(exchange.answers.items()):
            # Rewards that differ: from a group of equal rewards nothing is learned, and the learner would be idle.
            value = float(choice % 2) if len(exchange.answers) > 1 else enthusiastic(messages(exchange.topic), text)
            feedback = await self.client.rate(exchange.id, choice, value)
            if feedback is not None:
                self.rewards[feedback] = exchange.id


@contextlib.asynccontextmanager
async def loading(client: Client, model: str, seed: int) -> AsyncIterator[Load]:
    """Run the users for as long as the context lasts; then each finishes its turn."""
    load = Load(client, model)
    async with asyncio.TaskGroup() as group:
        for number in range(USERS):
            group.create_task(load.user(random.Random(f"{seed}:{number}")))
        try:
            yield load
        finally:
            load.stop.set()


async def measure(
    config: Path, folder: Path, kills: dict[str, int], *, seed: int = 0, spread: float = 2.0, model: str = stack.POLICY
) -> Report:
    """Run `ratchet up` with `config` in `folder`, kill each role as often as `kills` says, and compare the clients' log with the store.

    The kills come in random order, at random times up to `spread` seconds apart. TimeoutError: the stack did not recover.
    """
    rng = random.Random(seed)
    order = [role for role, number in kills.items() for _ in range(number)]
    rng.shuffle(order)
    report = Report(kills=dict(kills), recovery={role: [] for role in kills})
    data = folder / "data"
    async with stack.running(config, data, folder / "up.log") as ready:
        log = Log()
        async with Client(ready.gateway, ready.keys.client, log) as client, loading(client, model, seed) as load:
            await _progress(load)
            for role in order:
                await asyncio.sleep(rng.uniform(0, spread))
                report.recovery[role].append(await _kill(role, ready.pid, ready.gateway, load))
                await _check_ledger(data, report, f"after killing the {role}")
        report.interrupted = len(log.failures)
        await _compare(data, load, report)
    return report


async def _kill(role: str, up: int, gateway: str, load: Load) -> float:
    """Kill the role's process; seconds until a request that was sent afterwards was acknowledged."""
    victim = await find(role, up, RECOVERY_SECONDS)
    os.kill(victim.pid, signal.SIGKILL)
    killed = monotonic()
    async with asyncio.timeout(RECOVERY_SECONDS):
        while True:
            await _progress(load)
            if any(e.started.mono > killed for e in list(load.acknowledged.values())[-USERS * 4 :]):
                return monotonic() - killed


async def _progress(load: Load) -> None:
    load.progress.clear()
    async with asyncio.timeout(RECOVERY_SECONDS):
        await load.progress.wait()


@contextlib.asynccontextmanager
async def _store(data: Path) -> AsyncIterator[Store]:
    """Connect to the embedded store; wait while it loads its file after a kill."""
    deadline = monotonic() + RECOVERY_SECONDS
    while True:
        try:
            store = await open_store("embedded", StoreConfig(), data=data)
            break
        except (StoreError, OSError):
            if monotonic() > deadline:
                raise
            await asyncio.sleep(POLL_SECONDS)
    try:
        yield store
    finally:
        await store.close()


async def _check_ledger(data: Path, report: Report, when: str) -> None:
    async with _store(data) as store:
        ledger = await store.feedback.ledger()
    if not ledger.balances:
        report.unbalanced.append(f"{when}: {ledger}")


async def _compare(data: Path, load: Load, report: Report) -> None:
    report.answers, report.rewards = len(load.acknowledged), len(load.rewards)
    async with _store(data) as store:
        report.missing_answers = await _missing(store, load, [*load.acknowledged])
        deadline = monotonic() + SETTLE_SECONDS
        while report.missing_answers and monotonic() < deadline:  # the spool may not have been drained yet
            await asyncio.sleep(POLL_SECONDS)
            report.missing_answers = await _missing(store, load, report.missing_answers)
        report.missing_rewards = [feedback for feedback in load.rewards if await store.feedback.record(feedback) is None]
        ledger = await store.feedback.ledger()
    if not ledger.balances or ledger.received < len(load.rewards):
        report.unbalanced.append(f"at the end: {ledger}, {len(load.rewards)} acknowledged")
    report.ledger = {"received": ledger.received, "used": ledger.used, "pending": ledger.pending, "rejected": dict(ledger.rejected)}
    report.ledger["expired"] = ledger.expired


async def _missing(store: Store, load: Load, ids: list[str]) -> list[str]:
    """The ids that the store does not have, or whose text differs from what the client read."""
    missing = []
    for ident in ids:
        found = await store.interactions.get(ident, None)
        texts = [choice.message.get("content") or "" for choice in found.choices] if found is not None else []
        if found is None or found.status != "complete" or not _same(load.acknowledged[ident], texts):
            missing.append(ident)
    return missing


def _same(exchange: Exchange, recorded: list[str]) -> bool:
    """Whether the store has exactly the text that the client read."""
    return recorded == [exchange.answers[index] for index in sorted(exchange.answers)]


def fake_configuration(folder: Path, seed: int = 0) -> Path:
    """The demo's YAML with the deterministic fake engine, which serves many more requests a second for a kill to interrupt."""
    path = stack.write_configuration(folder, seed)
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    tree["engines"] = [{"name": "local", "kind": "fake", "model": stack.MODEL, "launch": {"extra": []}}]
    path.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    return path


def text(report: Report) -> str:
    """The report as a Markdown table."""
    rows: list[list[object]] = []
    for role, kills in report.kills.items():
        times = sorted(report.recovery[role])
        rows.append([role, kills, f"{times[len(times) // 2]:.2f}" if times else "-", f"{times[-1]:.2f}" if times else "-"])
    times_table = section.table(("killed", "times", "seconds until acknowledged again, median", "max"), rows)
    counts = (
        f"{report.answers} acknowledged answers, {len(report.missing_answers)} missing; {report.rewards} acknowledged rewards, "
        f"{len(report.missing_rewards)} missing; {report.interrupted} requests interrupted; ledger {json.dumps(report.ledger)}, "
        f"{len(report.unbalanced)} times out of balance."
    )
    return f"{times_table}\n\n{counts}"


def main() -> int:
    args = _arguments()
    folder = Path(tempfile.mkdtemp(prefix="ratchet-durability-", dir=args.work))
    config = stack.write_configuration(folder, args.seed) if args.engine == "vllm" else fake_configuration(folder, args.seed)
    report = asyncio.run(measure(config, folder, dict.fromkeys(args.roles, args.kills), seed=args.seed, spread=args.spread))
    print(text(report), *report.unbalanced, sep="\n")
    if args.json is not None:
        args.json.write_text(json.dumps(asdict(report), indent=2))
    if not args.no_docs:
        section.replace("durability", "kill -9 under load", f"{USERS} users, on the {args.engine} engine.\n\n{text(report)}")
    return 0 if report.good else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="times each role is killed")
    parser.add_argument("--roles", nargs="+", choices=ROLES, default=list(ROLES))
    parser.add_argument("--engine", choices=("fake", "vllm"), default="fake")
    parser.add_argument("--spread", type=float, default=2.0, help="longest wait before a kill, seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the report there")
    parser.add_argument("--work", type=Path, help="folder of the data (default: the system's temporary folder)")
    parser.add_argument("--no-docs", action="store_true", help="do not write docs/benchmarks.md")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
