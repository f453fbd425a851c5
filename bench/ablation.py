"""Measure what each optimisation of the hot path saves: `python bench/ablation.py [--part N | NAME...]`. Writes docs/benchmarks.md.

`bench/without` has the optimisations, each with the plain code in its place. A few at a time are measured beside the whole gateway:
each in a process and on a store of its own, all on one core, in front of one mock engine, in interleaved rounds. The `control`
removes nothing, so what it seems to save is noise. Every run adds its samples to bench/data/ablation.json, from which the page is
written. Exit status 0 only if every answer was recorded and no request failed.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import section
from bench.gateways import ablated
from bench.gateways.ablated import Run
from bench.gateways.measure import Bench
from bench.gateways.mock import mocked
from bench.gateways.ours import PROGRAM, ours
from bench.gateways.peers import pinned
from bench.gateways.report import proof
from bench.without import OPTIMISATIONS
from bench.without.run import CONTROL

AT_A_TIME = 4
"""Optimisations measured beside one whole gateway."""
WHOLE = "whole"


async def measure(names: Sequence[str], rounds: int, seconds: float, core: int | None, folder: Path) -> Bench:
    """Measure the whole gateway, the control and the gateway without each of `names`, in interleaved rounds."""
    async with mocked() as engine, AsyncExitStack() as stack:
        bench, sides = Bench(engine, folder, seconds), []
        for name in (WHOLE, CONTROL, *names):
            program = PROGRAM if name == WHOLE else ("-m", "bench.without.run", name, "--")
            side = await stack.enter_async_context(ours(engine.url, folder / name, core=pinned(core), program=program))
            side.name = name
            sides.append(side)
        for turn in range(rounds):
            await bench.side_by_side(sides, ablated.CASES, turn)
            print(f"bench: round {turn + 1} of {rounds}: {', '.join(names)}", flush=True)
    return bench


def parts() -> list[list[str]]:
    """The names of the optimisations, in groups that are measured together."""
    names = list(OPTIMISATIONS)
    return [names[at : at + AT_A_TIME] for at in range(0, len(names), AT_A_TIME)]


def main() -> int:
    args = _arguments()
    others = set(range(os.cpu_count() or 1)) - {args.core}
    if others and args.core is not None:
        os.sched_setaffinity(0, others)
    groups = parts() if args.part is None else [parts()[args.part - 1]]
    if args.names:
        groups = [args.names[at : at + AT_A_TIME] for at in range(0, len(args.names), AT_A_TIME)]
    sound = True
    for names in groups:
        with tempfile.TemporaryDirectory(prefix="ratchet-ablation-", dir=args.work) as folder:
            bench = asyncio.run(measure(names, args.rounds, args.seconds, args.core, Path(folder)))
        print(proof(bench.faults), flush=True)
        sound = sound and bench.faults.sound
        runs = {name: Run.of(bench.samples, WHOLE, name, args.rounds, args.seconds) for name in names}
        runs[f"{CONTROL} of {names[0]}"] = Run.of(bench.samples, WHOLE, CONTROL, args.rounds, args.seconds)
        print(ablated.text(runs, OPTIMISATIONS), flush=True)
        if not args.no_docs:
            section.replace("ablation", "What each optimisation saves", ablated.text(ablated.add(args.json, runs), OPTIMISATIONS))
    return 0 if sound else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    count = math.ceil(len(OPTIMISATIONS) / AT_A_TIME)
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("names", nargs="*", metavar="NAME", default=[], help=f"{', '.join(OPTIMISATIONS)} (default: all)")
    chosen.add_argument("--part", type=int, choices=range(1, count + 1), help=f"one of {count} parts of them")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=1.8, help="seconds of one measurement")
    parser.add_argument("--core", type=int, default=0 if (os.cpu_count() or 1) > 1 else None, help="the gateways' core")
    parser.add_argument("--json", type=Path, default=ablated.DATA, help="where the samples are kept (%(default)s)")
    parser.add_argument("--work", type=Path, help="folder of the data (default: the system's temporary folder)")
    parser.add_argument("--no-docs", action="store_true", help="keep no samples and do not write docs/benchmarks.md")
    args = parser.parse_args()
    if unknown := set(args.names) - OPTIMISATIONS.keys():
        parser.error(f"no such optimisation: {', '.join(sorted(unknown))}")
    return args


if __name__ == "__main__":
    raise SystemExit(main())
