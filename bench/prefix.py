"""Compare prefix affinity with round-robin: `python bench/prefix.py`. Writes docs/benchmarks.md.

Two real vLLM replicas run on the CPU, one core each. Each round starts a gateway with each strategy, in alternating order. The
dialogues of a round begin with words of their own, so that no cache filled by an earlier one serves it. Ratios are taken within a
round, since the machine may be busy. Exit status 0 once it was measured, whichever strategy wins.
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
from bench.gateways.figures import Samples, formatted, percentile, rotated
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
    "load": "load",
}
SHARES = ("hit", "later hit", "moved", "busiest")
RATIOS = {"hit": "hit rate", "computed": "prompt tokens left to compute in later turns", "p50": "TTFT p50", "p90": "TTFT p90"}


def configuration(strategy: str, engines: Sequence[EngineRecord], ports: tuple[int, int]) -> dict[str, Any]:
    """The YAML of a gateway with that strategy."""
    gateway = {"port": ports[0], "admin_port": ports[1], "routing": {"strategy": strategy}}
    return tree({engine.name: engine.url for engine in engines}, gateway)


async def measure(shape: Shape, rounds: int, folder: Path) -> Samples:
    """Run all rounds; their figures by strategy."""
    samples = Samples()
    async with replicas.replicas(REPLICAS, folder) as engines:
        await asyncio.gather(*[_warm(engine) for engine in engines])
        for turn in range(rounds):
            for strategy in rotated(STRATEGIES, turn):
                await _round(strategy, turn, shape, engines, folder / f"{strategy}-{turn}", samples)
    return samples


async def _warm(engine: EngineRecord) -> None:
    """Run a dialogue directly on the engine, whose first long prompt is slow."""
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
    """Add one round's figures: the hit rate by the engines' counters, the others by what the clients saw."""
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
    """The section of the page: how it was measured, the table, and the verdict."""
    rows = [[f"`{strategy}`", *(_each(samples, strategy, figure) for figure in COLUMNS)] for strategy in STRATEGIES]
    return "\n\n".join([_how(shape, rounds), section.table(("strategy", *COLUMNS.values()), rows), verdict(samples)])


def _how(shape: Shape, rounds: int) -> str:
    return (
        f"{REPLICAS} real vLLM servers (SmolLM2 on the CPU, one core each, prefix caching in blocks of {BLOCK} tokens) behind one "
        f"gateway that records. {shape.dialogues} open dialogues of {shape.turns} turns, of which {shape.concurrency} ask at a time, "
        f"drawn at random. Each has a system prompt of its own ({shape.system_words} words), asks questions of {shape.question_words} "
        f"words, sends the whole dialogue so far, and gets up to {shape.answer_tokens} tokens, streamed. {rounds} rounds of each "
        "strategy in alternating order, each with new dialogues; the table gives the figures of every round. The hit rate is that of "
        "prompt tokens by vLLM's counters, with first turns, which no cache can serve; that of later turns is by "
        "`usage.prompt_tokens_details`. Load is the machine's load of the last minute of a round: where it is high or differs between "
        "rounds, milliseconds and their ratios are rough."
    )


def _each(samples: Samples, strategy: str, figure: str) -> str:
    """The values of all rounds, in order."""
    values = samples.values[strategy][figure]
    return " / ".join(f"{value:.0%}" if figure in SHARES else formatted(value) for value in values)


def ratios(samples: Samples, figure: str) -> list[float]:
    """The figure of prefix affinity divided by that of round-robin, round by round."""
    return [a / b for a, b in zip(samples.values[PREFIX][figure], samples.values[ROUND_ROBIN][figure], strict=True)]


def verdict(samples: Samples) -> str:
    """A paragraph: the ratios, in which figures prefix affinity was better in every round, and how it spread the load."""
    compared = {title: ratios(samples, figure) for figure, title in RATIOS.items()}
    shares = "; ".join(f"{title} {' / '.join(formatted(value, 'x') for value in values)}" for title, values in compared.items())
    better = [title for title, values in compared.items() if all(value > 1 if title == RATIOS["hit"] else value < 1 for value in values)]
    worse = [title for title in compared if title not in better]
    sentence = (
        f"`prefix` divided by `round_robin`, by round: {shares}. `prefix` was better in every round in: {', '.join(better) or 'nothing'}."
    )
    sentence += f" It was not in: {', '.join(worse)}." if worse else ""
    return f"{sentence} {_spread(samples)}"


def _spread(samples: Samples) -> str:
    if any(samples.values[PREFIX]["moved"]):
        return "With `prefix`, the turns that changed replica did so because of its bound on load (`spill_tokens`)."
    return (
        "`prefix` kept every dialogue on the replica where it began, which a hash chooses, so that few dialogues may be spread "
        "unevenly; its bound on load (`spill_tokens`) was never reached."
    )


def main() -> int:
    args = _arguments()
    shape, folder = Shape(args.dialogues, args.turns, args.concurrency), Path(tempfile.mkdtemp(prefix="ratchet-prefix-"))
    samples = asyncio.run(measure(shape, args.rounds, folder))
    found = text(samples, shape, args.rounds)
    print(found)
    if args.json is not None:
        args.json.write_text(json.dumps({"shape": asdict(shape), "samples": samples.values}, indent=1), encoding="utf-8")
    if not args.no_docs:
        section.replace("prefix", "Prefix affinity against round-robin", found)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dialogues", type=int, default=Shape.dialogues)
    parser.add_argument("--turns", type=int, default=Shape.turns, help="turns of a dialogue")
    parser.add_argument("--concurrency", type=int, default=Shape.concurrency, help="dialogues that ask at a time")
    parser.add_argument("--rounds", type=int, default=2, help="rounds of each strategy")
    parser.add_argument("--json", type=Path, help="write every round's figures there")
    parser.add_argument("--no-docs", action="store_true", help="do not write docs/benchmarks.md")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
