"""How often the activation proof is right, on the recorded log-probs: `python -m bench.activation.rates [--no-docs] [--seeds even|odd]`.

The statistic was chosen on the lineages of even seeds; the figures are of the odd ones. Each trial draws answers without replacement from
a set's 48 (the base's 48 are all used) and decides once. Writes the table into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from bench import section
from bench.activation import data
from bench.activation.data import Sets
from bench.activation.train import LINEAGES, VERSIONS
from learner.gate import activation
from learner.gate.activation import Probe

TRIALS = 100
COUNTS = (12, 24, 40)
"""Answers a trial, of 16 tokens each."""
BASE = "base"
INTRODUCTION = """A real vLLM's log-probs of adapters of real GRPO steps (SmolLM2, three versions a lineage, 16 tokens an answer), judged by
`learner.gate.activation` as `bench/activation/rates.py` says. Percent active / refused / undecided. `stale`: the previous version
serves; `unapplied`: the base; `wrong`: another lineage's version that the replica holds; `unknown`: the same, when the learner does
not know that the replica holds it.

"""
KINDS = ("true", "stale", "unapplied", "wrong", "unknown")


@dataclass(frozen=True)
class Case:
    """Answers drawn by one version and judged as another's. `kind`: `true`, `stale`, `unapplied`, `wrong` (the replica holds both)
    or `unknown` (an adapter that the learner does not know of)."""

    kind: str
    drawn_by: str
    candidate: str
    alternatives: tuple[str, ...]


def cases(seed: int, rate: float) -> Iterator[Case]:
    """Every case of one lineage."""
    other = next(f"{s}-{r:g}" for s, r in LINEAGES if r == rate and s != seed)
    for version in range(1, VERSIONS + 1):
        name, foreign = f"{seed}-{rate:g}@{version}", f"{other}@{version}"
        before = () if version == 1 else (f"{seed}-{rate:g}@{version - 1}",)
        yield Case("true", name, name, (BASE, *before))
        yield Case("unapplied", BASE, name, (BASE, *before))
        if before:
            yield Case("stale", before[0], name, (BASE, *before))
        yield Case("wrong", foreign, name, (BASE, foreign))
        yield Case("unknown", foreign, name, (BASE,))


def trials(sets: Sets, case: Case, count: int, *, number: int = TRIALS) -> Counter[str]:
    """Outcomes of `number` trials with `count` answers each; none if the recording lacks the case."""
    probes, base = sets.get(case.drawn_by, []), sets.get(BASE, [])
    if len(probes) < count or not base or not {case.candidate, *case.alternatives} <= probes[0].exact.keys():
        return Counter()
    sigma = activation.noise(base, BASE)
    found = activation.scores(case.candidate, case.alternatives, probes, sigma)
    level = activation.energies(BASE, base, sigma)
    chance = random.Random(f"{case} {count}")
    chosen = [chance.sample(range(len(probes)), count) for _ in range(number)]
    return Counter(activation.decide({name: [values[i] for i in some] for name, values in found.items()}, level).outcome for some in chosen)


def in_float32(sets: Sets) -> Sets:
    """The same probes as a learner would judge them that computes in float32 only."""
    return {name: [Probe(probe.engine, probe.exact, probe.exact) for probe in probes] for name, probes in sets.items()}


def rows(found: dict[str, Sets], parity: int) -> Iterator[list[str]]:
    """The table's rows: by noise level, learning rate and kind, the outcomes of each count."""
    for level, sets in found.items():
        for seed, rate in LINEAGES:
            if seed % 2 != parity:
                continue
            for kind in KINDS:
                chosen = [case for case in cases(seed, rate) if case.kind == kind]
                totals = [sum((trials(sets, case, count) for case in chosen), Counter[str]()) for count in COUNTS]
                if totals[0]:
                    yield [level, f"{rate:g}", kind, str(totals[0].total()), *map(_shares, totals)]


def _shares(total: Counter[str]) -> str:
    return " / ".join(f"{100 * total[outcome] / total.total():.1f}" for outcome in ("active", "refused", "undecided"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", choices=("even", "odd"), default="odd")
    parser.add_argument("--no-docs", action="store_true")
    args = parser.parse_args()
    head = ["engine", "learning rate", "served", "trials", *(f"{count} answers" for count in COUNTS)]
    found = data.load()
    found["bfloat16, learner in float32"] = in_float32(found["bfloat16"])
    text = section.table(head, rows(found, int(args.seeds == "odd")))
    print(text)
    if not args.no_docs:
        section.replace("activation", "The activation proof on recorded log-probs", INTRODUCTION + text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
