"""The gate's sequential test on simulated candidates whose true worth is known: `python bench/gate.py [--runs N] [--no-docs]`.

A version's rewards are Beta-distributed in [0, 1] with its true mean; two versions' answers to a prompt differ with a standard
deviation of 0.3. Writes how often each kind of candidate passes, is called worse or stays undecided, and how many pairs that
took, into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import section
from learner.gate.sequential import Anchor, Answer, Comparison, anchors, spent, together

DELTA, MAX_PAIRS, SPREAD = 0.1, 400, 0.3
"""Reward that a candidate may lose, pairs it may take, standard deviation of a pair's difference."""
ALPHA = 0.05
"""Chance that any version of a policy's whole life passes although it is worse than an anchor by DELTA; and, at each
examination, of calling a candidate worse that is not."""
PROXY, WITHHELD = "proxy", "withheld"
BASE, LOWEST = 0.5, 0.1
"""The base's mean reward, and the least that a lineage is followed to."""


def reward(chance: random.Random, mean: float) -> float:
    """One answer's reward: Beta with `mean` and half the variance of a pair's difference."""
    total = mean * (1 - mean) / (SPREAD**2 / 2) - 1
    return chance.betavariate(mean * total, (1 - mean) * total)


@dataclass
class Outcome:
    """How an examination ended, after how many pairs."""

    answer: Answer
    pairs: int


def examine(
    chance: random.Random, candidate: dict[str, float], known: Sequence[tuple[Anchor, dict[str, float]]], examination: int
) -> Outcome:
    """Pairs until every comparison agrees or MAX_PAIRS. `candidate` and the versions in `known`: true mean by scorer."""
    alpha = spent(ALPHA, examination)
    share = ALPHA / (len(known) * len(candidate))
    tests = {
        (anchor.version, scorer): Comparison(delta=DELTA, alpha=alpha, ceiling=anchor.ceiling, alpha_worse=share)
        for anchor, _ in known
        for scorer in candidate
    }
    for pairs in range(1, MAX_PAIRS + 1):
        ours = {scorer: reward(chance, mean) for scorer, mean in candidate.items()}
        for anchor, means in known:
            for scorer in candidate:
                tests[anchor.version, scorer].add(ours[scorer] - reward(chance, means[scorer]))
        answer = together(test.answer for test in tests.values())
        if answer != "undecided":
            return Outcome(answer, pairs)
    return Outcome("undecided", MAX_PAIRS)


@dataclass
class Rates:
    """Shares of the candidates by answer, and the pairs taken."""

    outcomes: list[Outcome] = field(default_factory=list)

    def share(self, answer: Answer) -> float:
        return sum(o.answer == answer for o in self.outcomes) / len(self.outcomes)

    def row(self) -> list[str]:
        pairs = sorted(o.pairs for o in self.outcomes)
        shares = [f"{100 * self.share(answer):.1f} %" for answer in ("pass", "worse", "undecided")]
        return [*shares, f"{statistics.median(pairs):.0f}", f"{pairs[int(0.95 * (len(pairs) - 1))]}"]


def candidates(better: float, *, runs: int, examination: int = 1, withheld: float | None = None, seed: int = 0) -> Rates:
    """`runs` candidates that are `better` than their anchors. At the first examination the live version is the base; later ones
    have three anchors of equal worth. `withheld`: how much better by a second scorer."""
    chance = random.Random(f"{seed} {better} {examination} {withheld}")
    worth = {PROXY: BASE} | ({} if withheld is None else {WITHHELD: BASE})
    candidate = {PROXY: BASE + better} | ({} if withheld is None else {WITHHELD: BASE + withheld})
    live, best = (0, 0) if examination == 1 else (9, 5)
    known = [(anchor, worth) for anchor in anchors(live, best, DELTA)]
    return Rates([examine(chance, candidate, known, examination) for _ in range(runs)])


@dataclass
class Drift:
    """What a lineage lost against the base, in true reward, and how many of its versions went live."""

    loss: float
    published: int


def lineage(each: float, *, versions: int, seed: int, anchored: bool = True) -> Drift:
    """`versions` candidates in a row, each worse by `each` than the version that is live then. `anchored`: base and best are asked too."""
    chance = random.Random(f"drift {each} {seed} {anchored}")
    live, loss = 0, 0.0
    for number in range(1, versions + 1):
        if BASE - loss - each < LOWEST:
            break
        worth = {live: BASE - loss, 0: BASE}
        asked = anchors(live, 0, DELTA) if anchored else [Anchor(live, 0.0)]
        known = [(anchor, {PROXY: worth[anchor.version]}) for anchor in asked]
        if examine(chance, {PROXY: BASE - loss - each}, known, number).answer == "pass":
            live, loss = number, loss + each
    return Drift(loss, live)


def drift_row(each: float, anchored: bool, runs: int) -> list[str]:
    found = [lineage(each, versions=50, seed=seed, anchored=anchored) for seed in range(runs)]
    losses = [f.loss for f in found]
    beyond = sum(loss > DELTA + 1e-9 for loss in losses)
    compared = "live, best, base" if anchored else "live only"
    return [f"{each:g}", compared, f"{statistics.mean(losses):.3f}", f"{max(losses):.3f}", f"{beyond} of {runs}"]


def kinds(runs: int) -> list[list[str]]:
    """The table's rows."""
    rows = []
    for examination in (1, 50):
        for name, better in (("0.1 better", 0.1), ("equal", 0.0), ("0.05 worse", -0.05), ("0.1 worse", -0.1), ("0.2 worse", -0.2)):
            rows.append([name, str(examination), *candidates(better, runs=runs, examination=examination).row()])
    rows.append(["proxy 0.1 better, truth 0.2 worse; no second scorer", "1", *candidates(0.1, runs=runs).row()])
    rows.append(["the same, withheld scorer", "1", *candidates(0.1, withheld=-0.2, runs=runs).row()])
    rows.append(["0.1 better by both", "1", *candidates(0.1, withheld=0.1, runs=runs).row()])
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=2000, help="candidates of each kind")
    parser.add_argument("--no-docs", action="store_true")
    args = parser.parse_args()
    head = ["candidate", "examination", "passed", "worse", "undecided", "pairs, median", "pairs, 95 %"]
    text = section.table(head, kinds(args.runs))
    lineages = max(20, args.runs // 20)
    drift = [drift_row(each, anchored, lineages) for each in (0.005, 0.01, 0.02) for anchored in (True, False)]
    head = ["each worse by", "compared with", "lost in all, mean", "largest", "lost more than delta"]
    text += f"\n\n50 versions in a row, {lineages} times:\n\n" + section.table(head, drift)
    print(text)
    if not args.no_docs:
        intro = (
            f"`delta` {DELTA}, `max_pairs` {MAX_PAIRS}, standard deviation of a pair {SPREAD}, {args.runs} candidates a row "
            "(`bench/gate.py`). At examination 50 there are three anchors, and the error rate is what `spent` leaves.\n\n"
        )
        section.replace("gate", "The gate's sequential test, simulated", intro + text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
