"""The tables of `bench/gateway.py`, and the bars it is held to. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from bench import section
from bench.gateways.figures import Bar, Samples, formatted
from bench.gateways.measure import DIRECT, OPEN_LOOPS, Faults
from bench.gateways.memory import MIB, Flat, Idle
from bench.gateways.ours import NAME

COST_HEAD = (
    "gateway",
    "CPU us a request, c8",
    "c32",
    "whole answer, c8",
    "8 chunks one by one, c32",
    "CPU us a chunk",
    "requests/s, c8",
    "c32",
)
OPEN_HEAD = ("gateway", *(f"{rate}/s x {tokens} {share}" for rate, tokens in OPEN_LOOPS for share in ("p50", "p99")))
RATIOS = (("c8", "request, c8"), ("c32", "request, c32"), ("chunk", "chunk"))
LIMITS: Mapping[tuple[str, ...], Mapping[str, float]] = {
    ("SMG",): {"c8": 1.2, "c32": 1.2, "chunk": 2.0},
    ("production-stack", "FastAPI"): {"c8": 1 / 3, "c32": 1 / 3},
    ("LiteLLM",): {"c8": 1 / 20, "c32": 1 / 20},
}
"""Our cost may be at most this many times that of the peer; of several peers, that of the first one that ran."""
ADDED = {"p50": 2.0, "p99": 10.0}
"""Milliseconds that the gateway may add to the time to the first byte."""


def costs(samples: Samples, names: Sequence[str]) -> str:
    """CPU and rate of each gateway: medians over the rounds."""
    figures = ("c8", "c32", "whole", "paced", "chunk", "c8 rate", "c32 rate")
    return section.table(COST_HEAD, [[name, *(formatted(samples.median(name, figure)) for figure in figures)] for name in names])


def ratios(samples: Samples, peers: Sequence[str]) -> str:
    """Our cost divided by each peer's within each round."""
    rows = [[peer, *(formatted(samples.ratio(figure, NAME, peer), "x") for figure, _ in RATIOS)] for peer in peers]
    return section.table(("ours divided by", *(title for _, title in RATIOS)), rows)


def store(samples: Samples) -> str:
    """The CPU of the embedded store beside the gateway's."""
    parts = []
    for figure, title in (("c8", "c8"), ("c32", "c32")):
        own, gateway = samples.median(NAME, f"{figure} store"), samples.median(NAME, figure)
        parts.append(f"{formatted(own)} us a request at {title} ({formatted(own / gateway, 'x')} the gateway's)")
    return "CPU of the store, which the table leaves out: " + ", ".join(parts) + "."


def added(samples: Samples, name: str, rate: int, tokens: int, share: str) -> float:
    """Milliseconds to the first byte more than on the direct path: the median of each round's difference."""
    figure = f"{rate}x{tokens} {share}"
    differences = Samples()
    for ours, direct in zip(samples.values[name][figure], samples.values[DIRECT][figure], strict=False):
        differences.add(name, figure, ours - direct)
    return differences.median(name, figure)


def opened(samples: Samples, names: Sequence[str]) -> str:
    """Time to the first byte in an open loop: of the direct path, then what each gateway adds."""
    own = [formatted(samples.median(DIRECT, f"{rate}x{tokens} {share}")) for rate, tokens in OPEN_LOOPS for share in ADDED]
    rows = [[f"{DIRECT} (total)", *own]]
    rows += [
        [name, *(formatted(added(samples, name, rate, tokens, share)) for rate, tokens in OPEN_LOOPS for share in ADDED)] for name in names
    ]
    return section.table(OPEN_HEAD, rows)


def bars(samples: Samples, peers: Sequence[str]) -> list[Bar]:
    """The bars with what was found."""
    found = []
    for prefixes, limits in LIMITS.items():
        peer = next((name for prefix in prefixes for name in peers if name.startswith(prefix)), "")
        for figure, most in limits.items():
            title = dict(RATIOS)[figure]
            found.append(Bar(f"CPU a {title}, against {peer or prefixes[0]}", samples.ratio(figure, NAME, peer), most))
    for rate, tokens in OPEN_LOOPS:
        for share, most in ADDED.items():
            found.append(Bar(f"added {share} at {rate}/s x {tokens} chunks", added(samples, NAME, rate, tokens, share), most, "ms"))
    return found


def verdicts(found: Sequence[Bar]) -> str:
    return section.table(("bar", "at most", "found", ""), [bar.row() for bar in found])


def proof(faults: Faults) -> str:
    """Say whether every answer was recorded, and what failed."""
    recorded = (
        f"{faults.answered} complete answers came through Ratchet; {faults.recorded} were recorded, {faults.spooled} of them by way of the "
        "spool; "
    )
    recorded += f"{faults.read_back} read back"
    leaks = f"{faults.leaks} pieces showed a client ids that it had not asked for"
    errors = ", ".join(f"{name} {count}" for name, count in faults.errors.items()) or "none"
    lines = [f"{recorded}; {leaks}. Failed requests: {errors}."]
    if not faults.every_one_recorded:
        lines.insert(0, "**NOT every answer was recorded.**")
    return "\n\n".join([*lines, *faults.notes])


def memory(flat: Flat | None, idle: Idle | None) -> str:
    """The memory figures, in MiB."""
    lines = []
    if flat is not None:
        steps = ", ".join(f"{size / MIB:.1f}" for size in flat.after)
        lines.append(
            f"Over {flat.requests:,} streamed requests ({flat.recorded:,} recorded, {flat.errors} failed) the gateway held, after each "
            f"tenth, {steps} MiB: {flat.growth / MIB:+.1f} MiB from the second tenth on, "
            f"{flat.growth / (flat.requests * 0.8):+.0f} bytes a request."
        )
    if idle is not None:
        lines.append(
            f"{idle.streams:,} idle streams: {idle.before / MIB:.1f} MiB before, {idle.opened / MIB:.1f} with all of them open "
            f"({idle.a_stream / 1024:.1f} KiB a stream), {idle.waited / MIB:.1f} after the wait, {idle.ended / MIB:.1f} after "
            f"they ended; {idle.errors} failed."
        )
    return "\n\n".join(lines)


def prompts(costs_by_length: Mapping[str, Mapping[int, float]]) -> str:
    """CPU a request by the length of its prompt, and what each further byte costs."""
    lengths = sorted({length for costs in costs_by_length.values() for length in costs})
    rows = []
    for name, found in costs_by_length.items():
        slope = (found[lengths[-1]] - found[lengths[0]]) / (lengths[-1] - lengths[0]) * 1000
        growth = found[lengths[-1]] / found[lengths[0]] if found[lengths[0]] > 0 else math.nan
        rows.append([name, *(formatted(found[length]) for length in lengths), formatted(slope), formatted(growth, "x")])
    return section.table(("gateway", *(f"{n:,} characters, us" for n in lengths), "ns a byte", "last to first"), rows)
