"""Measurements beside the rounds: long prompts, several workers, and where each microsecond goes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from bench import section
from bench.gateways import mock, stacks
from bench.gateways.environments import environment
from bench.gateways.figures import formatted, rotated
from bench.gateways.measure import LONG, SHORT, STEP_US, Bench
from bench.gateways.mock import Mock, request_body
from bench.gateways.ours import NAME, ours
from bench.gateways.peers import pinned
from bench.gateways.target import Target
from ratchet.config import GatewayConfig

PROMPTS = (1000, 10_000, 100_000)
CONNECTIONS = 8
HERTZ = 250
MARGIN_SECONDS = 2.0
FUNCTIONS = 12
CASES = (
    ("8-chunk streams, sent as fast as they are read", SHORT, True, 0, 8),
    ("80-chunk streams, chunks one by one", LONG, True, STEP_US, 32),
    ("whole answers", SHORT, False, 0, 8),
)
"""Title, tokens, stream, microseconds between tokens, connections."""
TRIED = (
    "What each optimisation of the hot path saves is measured one by one in the ablation (`bench/ablation.py`). Tried and removed: "
    "splitting chunks of a known shape at three places instead of parsing them, whose saving did not stand out from the noise."
)


async def prompts(bench: Bench, engine: Mock, targets: Sequence[Target], folder: Path) -> dict[str, dict[int, float]]:
    """Measure CPU us a request by the length of the prompt."""
    engine.step(0)
    found: dict[str, dict[int, float]] = {target.name: {} for target in targets}
    for length in PROMPTS:
        for target in targets:
            body = request_body(folder, tokens=SHORT, prompt=length)
            found[target.name][length] = await bench.cost(target, body, CONNECTIONS, f"prompt {length}")
    return found


def has_workers() -> bool:
    """Whether the configuration has `gateway.workers`."""
    return "workers" in GatewayConfig.model_fields


async def workers(bench: Bench, engine: Mock, folder: Path, count: int, rounds: int) -> str:
    """Measure CPU a request with `count` workers against one, interleaved; on all cores, since several workers need several."""
    engine.step(0)
    body = request_body(folder, tokens=SHORT)
    core = pinned(f"0-{(os.cpu_count() or 1) - 1}")
    async with (
        ours(engine.url, folder / "one", workers=1, core=core) as one,
        ours(engine.url, folder / "many", workers=count, core=core) as many,
    ):
        one.name, many.name = f"{NAME}, 1 worker", f"{NAME}, {count} workers"
        for turn in range(rounds):
            for target in rotated([one.name, many.name], turn):
                await bench.cost(one if target == one.name else many, body, 32, "workers")
        rows = [
            [t.name, formatted(bench.samples.median(t.name, "workers")), formatted(bench.samples.median(t.name, "workers rate"))]
            for t in (one, many)
        ]
        ratio = bench.samples.ratio("workers", many.name, one.name)
    return section.table(("", "CPU us a request, c32", "requests/s"), rows) + f"\n\n{count} workers cost {formatted(ratio, 'x')} one's."


async def profiled(bench: Bench, engine: Mock, target: Target, folder: Path, seconds: float) -> str:
    """Show where each microsecond of a request goes, by sampling the gateway from outside. Missing: no py-spy."""
    program = environment("profile") / "py-spy"
    parts = [f"Where its microseconds go (py-spy, {HERTZ} samples a second, everything recorded):"]
    for title, tokens, stream, step, connections in CASES:
        engine.step(step)
        body, raw = request_body(folder, tokens=tokens, stream=stream), folder / "stacks.txt"
        cost = await bench.cost(target, body, connections, f"profile {title}")
        running = asyncio.create_task(mock.load(target.url, body, target.headers, c=connections, d=seconds + MARGIN_SECONDS))
        await _sample(program, target, raw, seconds)
        await running
        parts.append(f"{title}, {formatted(cost)} us a request:\n\n{_tables(stacks.parse(raw.read_text(encoding='utf-8')), cost)}")
    return "\n\n".join([*parts, TRIED])


async def _sample(program: Path, target: Target, raw: Path, seconds: float) -> None:
    flags = ("--rate", str(HERTZ), "--duration", str(round(seconds)), "--format", "raw", "--output", str(raw))
    process = await asyncio.create_subprocess_exec(program, "record", "--pid", str(target.pid), *flags, stderr=asyncio.subprocess.PIPE)
    _, stderr = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"py-spy: {stderr.decode(errors='replace').strip()[-300:]}")


def _tables(samples: list[tuple[list[str], int]], cost: float) -> str:
    """Tables of microseconds by layer and by innermost function."""
    total = sum(count for _, count in samples) or 1
    layers = [[name, formatted(count / total * cost), f"{count / total:.0%}"] for name, count in stacks.by_layer(samples).most_common()]
    found = stacks.by_function(samples).most_common(FUNCTIONS)
    functions = ", ".join(f"`{name}` {formatted(count / total * cost)}" for name, count in found)
    return section.table(("layer", "us", "share"), layers) + f"\n\nMost expensive functions, with what they call in C: {functions}."
