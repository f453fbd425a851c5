"""Measure the gateway beside its peers: `python bench/gateway.py [--quick]`. Writes docs/benchmarks.md.

Every gateway runs on one core in front of the same mock engine (C, `bench/mock`); the load generator, the mock and the store have
the other cores. Each round measures every gateway, starting at another one each time. Costs are CPU time (user and system, of all
processes of a gateway), which a busy machine distorts less than wall time, and ratios are taken within a round.
Exit status 0 only if every answer was recorded and no request through Ratchet failed. A bar that is missed is reported, and is no failure.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import section
from bench.gateways import extras, memory, report
from bench.gateways.environments import Missing
from bench.gateways.figures import rotated
from bench.gateways.measure import DIRECT, Bench
from bench.gateways.mock import Mock, mocked
from bench.gateways.ours import NAME, ours
from bench.gateways.peers import PEERS, Place, peer, pinned
from bench.gateways.target import Target
from ratchet.process import free_port

PARTS = ("rounds", "memory", "prompts", "workers", "profile")
SLOW = "LiteLLM"
"""Left out of a quick run, since it takes half a minute to start."""


async def measure(args: argparse.Namespace, folder: Path) -> tuple[str, bool]:
    """Run the chosen parts; their text, and whether nothing of ours failed."""
    texts = []
    async with mocked() as engine, AsyncExitStack() as stack:
        bench = Bench(engine, folder, args.seconds)
        own = await stack.enter_async_context(ours(engine.url, folder / "ratchet", core=pinned(args.core)))
        targets = [own, *await _peers(args, engine, folder, bench, stack)]
        if "rounds" in args.parts:
            await _rounds(args, bench, [Target(DIRECT, engine.url), *targets])
            texts.append(_compared(bench, [target.name for target in targets]))
        texts += await _alone(args, bench, engine, targets, folder)
        texts.append(report.proof(bench.faults))
        if args.json is not None:
            args.json.write_text(json.dumps(bench.samples.values, indent=1), encoding="utf-8")
    return "\n\n".join(texts), bench.faults.every_one_recorded and NAME not in bench.faults.errors and not bench.faults.leaks


async def _peers(args: argparse.Namespace, engine: Mock, folder: Path, bench: Bench, stack: AsyncExitStack) -> list[Target]:
    """Start those that can run on this machine, and note why the others cannot."""
    found = []
    names = [name for name in PEERS if any(name.lower().startswith(wanted.lower()) for wanted in args.peers)]
    for number, name in enumerate(names):
        try:
            place = Place(engine.url, free_port(), folder / f"peer-{number}", args.production_stack)
            found.append(await stack.enter_async_context(peer(name, place, pinned(args.core))))
        except (Missing, RuntimeError) as why:
            bench.faults.notes.append(f"{name} was not run: {why}")
            print(bench.faults.notes[-1], flush=True)
    return found


async def _rounds(args: argparse.Namespace, bench: Bench, targets: list[Target]) -> None:
    by_name = {target.name: target for target in targets}
    for turn in range(args.rounds):
        for name in rotated(list(by_name), turn):
            await bench.round(by_name[name])
            print(f"bench: round {turn + 1} of {args.rounds}: {name}", flush=True)


def _compared(bench: Bench, names: list[str]) -> str:
    samples, peers = bench.samples, names[1:]
    parts = [report.costs(samples, names), report.store(samples)]
    if peers:
        parts += ["Ours divided by theirs, median of each round's own ratio:", report.ratios(samples, peers)]
    parts += [
        "Milliseconds to the first byte in an open loop: of the mock itself in the first row, and what each gateway adds in the others:",
        report.opened(samples, names),
    ]
    return "\n\n".join([*parts, report.verdicts(report.bars(samples, peers))])


async def _alone(args: argparse.Namespace, bench: Bench, engine: Mock, targets: list[Target], folder: Path) -> list[str]:
    """Run the parts that are not measured in rounds."""
    own, texts = targets[0], []
    if "prompts" in args.parts:
        compared = [target for target in targets if not target.name.startswith(SLOW)]
        texts.append(
            "By the length of the prompt, 8-chunk streams, c8:\n\n" + report.prompts(await extras.prompts(bench, engine, compared, folder))
        )
    if "memory" in args.parts:
        flat = await memory.flat(own, engine, folder, args.requests)
        texts.append(report.memory(flat, await memory.idle(own, engine, folder, args.streams, args.wait)))
    if "profile" in args.parts:
        try:
            texts.append(await extras.profiled(bench, engine, own, folder, args.seconds * 2))
        except Missing as why:
            bench.faults.notes.append(f"no profile: {why}")
    if "workers" in args.parts and not extras.has_workers():
        texts.append("Several workers were not measured: `gateway.workers` is not built.")
    elif "workers" in args.parts:
        texts.append(await extras.workers(bench, engine, folder, args.workers, args.rounds))
    return texts


def introduction(args: argparse.Namespace) -> str:
    """How it was measured, for the page."""
    return (
        "Each gateway on one core in front of a mock vLLM in C; the load generator, the mock and the store on the other cores. Prompts of "
        "1,000 characters and 200 token ids; answers of 8 tokens, one a chunk, unless stated otherwise. Ratchet records every answer in "
        "its embedded store: the mock sends it token ids and log-probs with each token, which Ratchet records and removes from what the "
        "client sees. The other gateways ask for none and record nothing. `c8`: a closed loop over 8 connections; chunks are sent as fast "
        "as they are read, so that one read may bring several. The cost of a chunk is that of answers of 80 tokens less that of answers "
        f"of 8, with 5 ms between tokens and 32 streams. Medians of {args.rounds} interleaved rounds; each measurement lasts "
        f"{args.seconds:g} s."
    )


def main() -> int:
    args = _arguments()
    others = set(range(os.cpu_count() or 1)) - {args.core}
    if others and args.core is not None:
        os.sched_setaffinity(0, others)
    folder = Path(tempfile.mkdtemp(prefix="ratchet-gateway-", dir=args.work))
    text, sound = asyncio.run(measure(args, folder))
    print(text)
    if not args.no_docs:
        section.replace("gateway", "The gateway beside its peers", f"{introduction(args)}\n\n{text}")
    return 0 if sound else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round without LiteLLM; writes no docs")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument(
        "--peers",
        nargs="*",
        default=["SMG", "vllm-router", "production-stack", "FastAPI", "LiteLLM"],
        help="how their names begin; none: Ratchet alone",
    )
    parser.add_argument("--production-stack", type=Path, metavar="CHECKOUT", help="a checkout of vllm-project/production-stack")
    parser.add_argument("--rounds", type=int, help="rounds (3; quick 1)")
    parser.add_argument("--seconds", type=float, help="seconds of one measurement (5; quick 1.5)")
    parser.add_argument("--requests", type=int, help="requests of the memory run (100000; quick 10000)")
    parser.add_argument("--streams", type=int, default=1000, help="concurrent idle streams")
    parser.add_argument("--wait", type=float, help="seconds that they are idle (30; quick 3)")
    parser.add_argument("--workers", type=int, default=2, help="number of workers to compare with one")
    parser.add_argument("--core", type=int, help="the gateways' core (the first; none on a machine with one core)")
    parser.add_argument("--json", type=Path, help="write every sample there")
    parser.add_argument("--work", type=Path, help="folder of the data (default: the system's temporary folder)")
    parser.add_argument("--no-docs", action="store_true", help="do not write docs/benchmarks.md")
    return _defaults(parser.parse_args())


def _defaults(args: argparse.Namespace) -> argparse.Namespace:
    full_quick = {"rounds": (3, 1), "seconds": (5.0, 1.5), "requests": (100_000, 10_000), "wait": (30.0, 3.0)}
    for name, values in full_quick.items():
        if getattr(args, name) is None:
            setattr(args, name, values[args.quick])
    if args.core is None and (os.cpu_count() or 1) > 1:
        args.core = 0
    if args.quick:
        args.no_docs = True
        args.peers = [name for name in args.peers if not SLOW.lower().startswith(name.lower())]
    return args


if __name__ == "__main__":
    raise SystemExit(main())
