"""The gateway beside its peers: `python bench/gateway.py [--quick]`. Issue 3's figures, written into docs/benchmarks.md.

Every gateway stands in front of the same mock engine (C, `bench/mock`) on one core; the load, the mock and the store have the
others. Each round measures each of them in turn, begun at another one each time; costs are CPU (user and system of all its
processes), so that a busy machine delays more than it falsifies, and ratios are taken within a round.
Exit 0 only if every answer was recorded and nothing of Ratchet's failed; bars that are missed are told, not hidden.
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
"""Left out of a quick run: it takes half a minute to start."""


async def measure(args: argparse.Namespace, folder: Path) -> tuple[str, bool]:
    """All parts that were asked for: their text, and whether nothing of ours failed."""
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
    """Those that run here; why each other does not is noted."""
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
    parts += ["Milliseconds to the first byte, open loop; below the first row, what a gateway adds to it:", report.opened(samples, names)]
    return "\n\n".join([*parts, report.verdicts(report.bars(samples, peers))])


async def _alone(args: argparse.Namespace, bench: Bench, engine: Mock, targets: list[Target], folder: Path) -> list[str]:
    """The parts that do not compare."""
    own, texts = targets[0], []
    if "prompts" in args.parts:
        beside = [target for target in targets if not target.name.startswith(SLOW)]
        texts.append(
            "By the length of the prompt, 8-chunk streams, c8:\n\n" + report.prompts(await extras.prompts(bench, engine, beside, folder))
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
    """How it was measured, in the page."""
    return (
        "Each gateway on one core in front of a mock vLLM in C; the load, the mock and the store on the others. Prompt 1,000 "
        "characters, answers of 8 tokens unless told, one a chunk, 200 prompt ids. Ratchet records every answer in its embedded store: "
        "the mock sends it ids and log-probs with each token, which it takes in and cuts out; the others ask for none and record "
        "nothing. `c8`: closed loop at 8 connections, chunks as fast as they are taken, so that several may come in one read. A "
        f"chunk's cost: answers of 80 against 8 tokens, 5 ms between two, 32 streams. Median of {args.rounds} interleaved rounds, "
        f"{args.seconds:g} s a measurement."
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
        help="names' beginnings; none: Ratchet alone",
    )
    parser.add_argument("--production-stack", type=Path, metavar="CHECKOUT", help="a checkout of vllm-project/production-stack")
    parser.add_argument("--rounds", type=int, help="rounds (3; quick 1)")
    parser.add_argument("--seconds", type=float, help="seconds of one measurement (5; quick 1.5)")
    parser.add_argument("--requests", type=int, help="requests of the memory run (100000; quick 10000)")
    parser.add_argument("--streams", type=int, default=1000, help="streams that wait at a time")
    parser.add_argument("--wait", type=float, help="seconds they wait (30; quick 3)")
    parser.add_argument("--workers", type=int, default=2, help="workers compared with one")
    parser.add_argument("--core", type=int, help="the gateway's core (the first; none on a machine of one)")
    parser.add_argument("--json", type=Path, help="write every sample there")
    parser.add_argument("--work", type=Path, help="folder of the data (default: the system's temporary folder)")
    parser.add_argument("--no-docs", action="store_true", help="leave docs/benchmarks.md alone")
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
