"""Measure the gateways of two commits side by side: `python bench/commits.py [--other COMMIT]`. Writes docs/benchmarks.md.

The other commit is checked out into a temporary git worktree; its gateway, its store and the code that starts them are its own.
Both run in this Python environment on one core, in front of the same mock engine, under the same load. Each round measures every
case of both, one right after the other. Exit status 0 only if every answer was recorded and no request failed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import section
from bench.gateways.checkout import checkout, hosted, name_of
from bench.gateways.figures import Estimate, Samples, estimate, formatted, spread
from bench.gateways.measure import CHUNK, PACED, PACED_LONG, SHORT, Bench, Case
from bench.gateways.mock import ROOT, mocked
from bench.gateways.peers import pinned
from bench.gateways.report import proof

BEFORE_ISSUE_8 = "a752148"
CASES = (
    Case("whole c8", SHORT, False, 0, 8),
    Case("whole c32", SHORT, False, 0, 32),
    Case("stream c8", SHORT, True, 0, 8),
    PACED,
    PACED_LONG,
)
TITLES = {
    "whole c8": "a whole answer, c8",
    "whole c32": "a whole answer, c32",
    "stream c8": "a stream of 8 chunks, sent as fast as they are read, c8",
    PACED.figure: "a stream of 8 chunks, one by one, c32",
    CHUNK: "a chunk",
}


async def measure(commit: str, rounds: int, seconds: float, core: int | None, folder: Path) -> tuple[Bench, list[str]]:
    """Run all rounds; what was measured, and the names of the two sides: the other commit's, then this checkout's."""
    with checkout(commit) as tree:
        trees = {name_of(tree): tree, f"{name_of(ROOT)} (this checkout)": ROOT}
        async with mocked() as engine, AsyncExitStack() as stack:
            bench = Bench(engine, folder, seconds)
            sides = [
                await stack.enter_async_context(hosted(tree, name, engine.url, folder / str(number), pinned(core)))
                for number, (name, tree) in enumerate(trees.items())
            ]
            for turn in range(rounds):
                await bench.side_by_side(sides, CASES, turn)
                print(f"bench: round {turn + 1} of {rounds}", flush=True)
    return bench, list(trees)


def verdict(ratio: Estimate) -> str:
    """What the interval of the ratio shows: no difference, or how much less or more this checkout costs."""
    if math.isnan(ratio.median):
        return "not measured"
    if ratio.low <= 1 <= ratio.high:
        return "no difference shown"
    return f"{abs(ratio.median - 1):.0%} {'less' if ratio.median < 1 else 'more'}"


def text(samples: Samples, names: Sequence[str], rounds: int, seconds: float) -> str:
    """The section of the page."""
    other, this = names
    rows = []
    for figure, title in TITLES.items():
        ratio = estimate(samples.ratios(figure, this, other))
        cells = [spread(estimate(samples.of_figure(name, figure))) for name in names]
        difference = spread(estimate(samples.differences(figure, this, other)))
        rows.append([title, *cells, difference, spread(ratio, "x"), verdict(ratio)])
    head = ("CPU us of the gateway for", f"`{other}`", f"`{this}`", "difference", "ratio", "")
    stores = " and ".join(formatted(samples.median(name, "whole c32 store")) for name in names)
    return (
        f"The gateways of two commits, `{other}` and `{this}`, in one run: on one core, in front of the same mock vLLM, each with the "
        "code and the store of its own commit, recording every answer. Each cell has the median and, in brackets, the 95 % interval of "
        f"the median over {rounds} interleaved rounds of {seconds:g} s a measurement; differences and ratios are taken within a round. "
        "`c8`: a closed loop over 8 connections. The cost of a chunk is that of streams of 80 chunks less that of streams of 8, with "
        "5 ms between chunks.\n\n"
        f"{section.table(head, rows)}\n\nCPU us of the store for a whole answer at c32: {stores}."
    )


def main() -> int:
    args = _arguments()
    others = set(range(os.cpu_count() or 1)) - {args.core}
    if others and args.core is not None:
        os.sched_setaffinity(0, others)
    with tempfile.TemporaryDirectory(prefix="ratchet-commits-", dir=args.work) as folder:
        bench, names = asyncio.run(measure(args.other, args.rounds, args.seconds, args.core, Path(folder)))
    found = "\n\n".join([text(bench.samples, names, args.rounds, args.seconds), proof(bench.faults)])
    print(found)
    if args.json is not None:
        samples: dict[str, Any] = {"rounds": args.rounds, "seconds": args.seconds, "samples": bench.samples.values}
        args.json.write_text(json.dumps(samples, indent=1), encoding="utf-8")
    if not args.no_docs:
        section.replace("commits", "The gateway beside that of an earlier commit", found)
    return 0 if bench.faults.sound else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", metavar="COMMIT", default=BEFORE_ISSUE_8, help="the commit to compare with (%(default)s)")
    parser.add_argument("--rounds", type=int, default=14)
    parser.add_argument("--seconds", type=float, default=2.0, help="seconds of one measurement")
    parser.add_argument("--core", type=int, default=0 if (os.cpu_count() or 1) > 1 else None, help="the gateways' core")
    parser.add_argument("--json", type=Path, help="write every sample there")
    parser.add_argument("--work", type=Path, help="folder of the data (default: the system's temporary folder)")
    parser.add_argument("--no-docs", action="store_true", help="do not write docs/benchmarks.md")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
