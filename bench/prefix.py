"""Prefix affinity against round-robin: `python bench/prefix.py`. Issue 3's figure, written into docs/benchmarks.md.

Two real vLLM replicas on the CPU, started once, a core each; each round a gateway of each strategy in turn, the other one first
in the next. Every round has beginnings of its own, so that no cache filled by another serves it. What is compared is within a
round, since the machine may be busy. Exit 0 once it was measured, whichever wins.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import dialogues, replicas, section
from bench.dialogues import Shape, Turn
from bench.gateways.figures import Samples, percentile, rotated, told
from bench.gateways.mock import MODEL
from bench.gateways.ours import healthy, served, tree
from bench.replicas import BLOCK
from ratchet.process import free_port
from ratchet.types import EngineRecord

ROUND_ROBIN, PREFIX = "round_robin", "prefix"
STRATEGIES = (ROUND_ROBIN, PREFIX)
REPLICAS = 2
COLUMNS = {
    "hit": "prefix-cache hit rate",
    "later hit": "of later turns alone",
    "p50": "TTFT of later turns, p50 ms",
    "p90": "p90 ms",
    "moved": "later turns that changed replica",
    "busiest": "turns on the busier replica",
    "load": "machine's load",
}
SHARES = ("hit", "later hit", "moved", "busiest")
RATIOS = {"hit": "hit rate", "computed": "prompt tokens left to compute in later turns", "p50": "TTFT p50", "p90": "TTFT p90"}


def configuration(strategy: str, engines: Sequence[EngineRecord], ports: tuple[int, int]) -> dict[str, Any]:
    """The YAML of one strategy's gateway."""
    gateway = {"port": ports[0], "admin_port": ports[1], "routing": {"strategy": strategy}}
    return tree({engine.name: engine.url for engine in engines}, gateway)


async def measure(shape: Shape, rounds: int, folder: Path) -> Samples:
    """All rounds' figures by strategy."""
    samples = Samples()
    async with replicas.replicas(REPLICAS, folder) as engines:
        await asyncio.gather(*[_warm(engine) for engine in engines])
        for turn in range(rounds):
            for strategy in rotated(STRATEGIES, turn):
                await _round(strategy, turn, shape, engines, folder / f"{strategy}-{turn}", samples)
    return samples


async def _warm(engine: EngineRecord) -> None:
    """A dialogue straight to the engine: its first long prompt is slow."""
    shape = Shape(dialogues=1, turns=2)
    await dialogues.run(engine.url, "none", MODEL, shape, salt=f"warm {engine.name}", seed="warm")


async def _round(strategy: str, turn: int, shape: Shape, engines: list[EngineRecord], folder: Path, samples: Samples) -> None:
    async with served(configuration(strategy, engines, (free_port(), free_port())), folder) as target:
        await healthy(target, [engine.name for engine in engines])
        before = await replicas.ask(engines)
        seen = await dialogues.run(target.url, target.keys["client"], MODEL, shape, salt=f"{strategy}/{turn}", seed=str(turn))
        hit = (await replicas.ask(engines)).since(before)
    add(samples, strategy, seen, hit)
    print(f"bench: round {turn + 1}: {strategy}: hit rate {hit:.2f}", flush=True)


def add(samples: Samples, strategy: str, seen: Sequence[Turn], hit: float) -> None:
    """One round's figures: `hit` by the engines' counters, the rest by what the clients saw."""
    waits = [turn.ttft for turn in dialogues.later(seen)]
    figures = {
        "hit": hit,
        "later hit": dialogues.found(dialogues.later(seen)),
        "computed": 1 - dialogues.found(dialogues.later(seen)),
        "p50": percentile(waits, 0.5),
        "p90": percentile(waits, 0.9),
        "moved": dialogues.moved(seen),
        "busiest": dialogues.busiest(seen),
        "load": os.getloadavg()[0],
    }
    for name, value in figures.items():
        samples.add(strategy, name, value)


def text(samples: Samples, shape: Shape, rounds: int) -> str:
    """The section: how, the table, the ratios, and who won."""
    rows = [[f"`{strategy}`", *(_each(samples, strategy, figure) for figure in COLUMNS)] for strategy in STRATEGIES]
    return "\n\n".join([_how(shape, rounds), section.table(("strategy", *COLUMNS.values()), rows), verdict(samples)])


def _how(shape: Shape, rounds: int) -> str:
    return (
        f"{REPLICAS} real vLLM (SmolLM2 on the CPU, a core each, prefix caching in blocks of {BLOCK} tokens) behind one gateway that "
        f"records. {shape.dialogues} open dialogues of {shape.turns} turns, {shape.concurrency} asking at a time, drawn at random; each "
        f"has a system prompt of its own ({shape.system_words} words), asks {shape.question_words} words, sends all that was said before, "
        f"and is streamed up to {shape.answer_tokens} tokens. {rounds} rounds of each strategy, in alternating order, each with fresh "
        "beginnings; all rounds' figures are given. The hit rate is of prompt tokens, by vLLM's counters, first turns included, which no "
        "cache can serve; that of later turns is by `usage.prompt_tokens_details`. The machine was shared, as its "
        "load tells (of the last minute of a round): the milliseconds are rough, and so are ratios of rounds with unlike loads."
    )


def _each(samples: Samples, strategy: str, figure: str) -> str:
    """The rounds' values, in order."""
    values = samples.values[strategy][figure]
    return " / ".join(f"{value:.0%}" if figure in SHARES else told(value) for value in values)


def ratios(samples: Samples, figure: str) -> list[float]:
    """Prefix affinity's figure divided by round-robin's, round by round."""
    return [a / b for a, b in zip(samples.values[PREFIX][figure], samples.values[ROUND_ROBIN][figure], strict=True)]


def verdict(samples: Samples) -> str:
    """One paragraph: the ratios, whether they speak for prefix affinity in every round, and how it spread the load."""
    compared = {title: ratios(samples, figure) for figure, title in RATIOS.items()}
    shares = "; ".join(f"{title} {' / '.join(told(value, 'x') for value in values)}" for title, values in compared.items())
    better = [title for title, values in compared.items() if all(value > 1 if title == RATIOS["hit"] else value < 1 for value in values)]
    worse = [title for title in compared if title not in better]
    said = (
        f"`prefix` divided by `round_robin`, by round: {shares}. `prefix` was better in every round in: {', '.join(better) or 'nothing'}."
    )
    said += f" It was not in: {', '.join(worse)}." if worse else ""
    return f"{said} {_spread(samples)}"


def _spread(samples: Samples) -> str:
    if any(samples.values[PREFIX]["moved"]):
        return "Of `prefix`, the turns that changed replica were spilled by its bound on load."
    return (
        "`prefix` kept every dialogue where it began; which replica that is, is drawn by a hash, so that few dialogues may be spread "
        "unevenly: its bound on load, past `spill_tokens`, was never reached."
    )


def main() -> int:
    args = _arguments()
    shape, folder = Shape(args.dialogues, args.turns, args.concurrency), Path(tempfile.mkdtemp(prefix="ratchet-prefix-"))
    samples = asyncio.run(measure(shape, args.rounds, folder))
    told_all = text(samples, shape, args.rounds)
    print(told_all)
    if args.json is not None:
        args.json.write_text(json.dumps({"shape": asdict(shape), "samples": samples.values}, indent=1), encoding="utf-8")
    if not args.no_docs:
        section.replace("prefix", "Prefix affinity against round-robin", told_all)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dialogues", type=int, default=Shape.dialogues)
    parser.add_argument("--turns", type=int, default=Shape.turns, help="of each dialogue")
    parser.add_argument("--concurrency", type=int, default=Shape.concurrency, help="dialogues that ask at a time")
    parser.add_argument("--rounds", type=int, default=2, help="of each strategy")
    parser.add_argument("--json", type=Path, help="write every round's figures there")
    parser.add_argument("--no-docs", action="store_true", help="leave docs/benchmarks.md alone")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
