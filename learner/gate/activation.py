"""Is the adapter under this name the candidate? Statistics on the log-probs of probe answers; no engine and no model here.

An engine may serve the base, the previous version or a wrong adapter under the candidate's name without a word. It also has
noise of its own: a bfloat16 engine's log-probs differ from a float32 learner's by 0.07 nats (r.m.s.) on the base, as much as a
small step moves them. So nothing is read off a single token. For each token t of the answers that the engine drew under the name:

    e        the engine's log-prob under the name
    E_h      the learner's log-prob under version h, exact (float32)
    R_h      the same computed in the engine's own precision (for a float32 engine R = E)
    s        1 - the largest probability a version gives the token: log-probs of certain tokens carry less noise, in proportion

**Why two precisions.** A bfloat16 engine adds the adapter's output to numbers on bfloat16's grid, where most of a small change is
rounded away: of SmolLM2's first step at a learning rate of 3e-4 a fifth to a third arrives (recorded in tests/data). E says where a
version would move a token and is free of rounding noise; R says how much of it such an engine can show, and is noisy. The first
gives the weights, the second the expected values.

**Closer** to candidate c than to alternative h. With u = (E_c - E_h) / s and z = (e - (R_c + R_h) / 2) / s, a linear discriminant:

    x_t = clip(u z / (sigma^2 + u^2 / 4), -2, 2)         sigma^2: mean of ((e - R_base) / s)^2 over base answers, 1e-6 at least

Its mean is positive if the engine computes c, as negative if it computes h. The divisor is the noise's variance where steps are
small, and bounds what one token can say where they are large.

**Fit.** The engine's distance from the candidate, f_t = min(((e - R_c) / s)^2, 25 sigma^2), has at most SLACK times the mean that
it has on the base.

Tokens of one answer depend on each other, so each answer counts once, with its mean; Student's t over answers (Welch's for the fit,
which has two samples). With `m` alternatives and at most LOOKS looks, each test has the level ALPHA / (LOOKS (m + 1)):

    active      closer to c than to every alternative, and fits; each shown at that level
    refused     closer to an alternative, or does not fit; shown at that level
    undecided   neither: ask for more probes, and after the last look keep the candidate waiting

So an engine that computes one of the alternatives is called active with probability at most ALPHA over all looks, and the
candidate itself is refused with at most ALPHA (answers taken as independent, their means as normal). An adapter that is none of
the alternatives is told by its fit, and therefore only if it differs from the candidate by more than the engine's own noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, variance
from typing import Literal

Outcome = Literal["active", "refused", "undecided"]
LogProbs = Sequence[float]

ALPHA = 1e-3
LOOKS = 4
SLACK = 2.0
LEAST_ANSWERS = 12
"""Fewer say nothing: a Student's t of so small a level needs degrees of freedom."""
NOISE_FLOOR = 1e-3
"""Nats. Adapters run through other kernels than the base, which round differently: less noise than this is not believed."""
SCALE_FLOOR = 0.02
ROUNDING = 0.01
"""Nats, r.m.s. A float32 engine is far below this on the base, a bfloat16 engine far above."""
BASE_LIMIT = 0.3
"""Nats, r.m.s. Above this on the base, engine and learner do not hold the same model."""


@dataclass(frozen=True)
class Probe:
    """One answer of the engine: log-probs [T] (nats) by the engine under the name, and by the learner under each version."""

    engine: LogProbs
    exact: Mapping[str, LogProbs]
    rounded: Mapping[str, LogProbs]


@dataclass(frozen=True)
class Finding:
    """What the probes say. `against`: the alternative that fits better, or "fit"; for `undecided` what could not be shown.

    `t`: the statistic of each test, positive for the candidate; `needed`: what it must exceed.
    """

    outcome: Outcome
    against: str | None
    t: dict[str, float]
    needed: float
    answers: int


FIT = "fit"


def noise(base: Sequence[Probe], name: str, *, exact: bool = False) -> float:
    """r.m.s. (scaled nats) of the engine's base from the learner's, on answers drawn under the base's name; NOISE_FLOOR at least, and
    NaN if a log-prob is.

    `exact`: from the float32 learner. Above ROUNDING that way, the engine does not compute in float32; above BASE_LIMIT, it does
    not hold the learner's model.
    """
    squares = [square for probe in base for square in _squares(probe, name, exact=exact)]
    return max(math.sqrt(fmean(squares)), NOISE_FLOOR)  # in this order NaN stays


def judge(candidate: str, alternatives: Sequence[str], probes: Sequence[Probe], base: Sequence[Probe], base_name: str) -> Finding:
    """Whether `probes` were drawn from the candidate. `base`: answers drawn under the base's name, for the noise; the more the better.

    ValueError: no alternative, or no base answers. A log-prob that is not finite refuses the candidate.
    """
    if not alternatives or not base:
        raise ValueError("nothing to compare the candidate with")
    if not all(math.isfinite(value) for probe in probes for value in probe.engine):
        return Finding("refused", FIT, {FIT: -math.inf}, 0.0, len(probes))
    sigma = noise(base, base_name)
    return decide(scores(candidate, alternatives, probes, sigma), energies(base_name, base, sigma))


def scores(candidate: str, alternatives: Sequence[str], probes: Sequence[Probe], sigma: float) -> dict[str, list[float]]:
    """Each answer's mean of x_t for each alternative, and under FIT its mean of f_t / sigma^2."""
    found = {other: [_closer(probe, candidate, other, sigma) for probe in probes] for other in alternatives}
    return found | {FIT: energies(candidate, probes, sigma)}


def energies(name: str, probes: Sequence[Probe], sigma: float) -> list[float]:
    """Each answer's mean of min(((e - R) / s)^2, 25 sigma^2) / sigma^2, R being the log-probs of version `name`."""
    return [fmean(min(square / sigma**2, 25.0) for square in _squares(probe, name)) for probe in probes]


def decide(found: dict[str, list[float]], base: Sequence[float]) -> Finding:
    """The outcome, from what `scores` gives for the probes and `energies` for the base answers."""
    answers = len(found[FIT])
    if min(answers, len(base)) < LEAST_ANSWERS:
        return Finding("undecided", None, {}, math.inf, answers)
    needed = quantile(ALPHA / (LOOKS * len(found)), min(answers, len(base)) - 1)
    t = {name: _fits(values, base) if name == FIT else _t(values) for name, values in found.items()}
    worst = min(t, key=lambda name: t[name])
    if t[worst] <= -needed:
        # What it serves instead says more than that it does not fit.
        named = min(found.keys() - {FIT}, key=lambda name: t[name])
        return Finding("refused", named if t[named] <= -needed else FIT, t, needed, answers)
    if t[worst] < needed:
        return Finding("undecided", worst, t, needed, answers)
    return Finding("active", None, t, needed, answers)


def _scale(probe: Probe) -> list[float]:
    """s of each token: the same for every version, so that no version is favoured by it."""
    return [max(SCALE_FLOOR, -math.expm1(min(values))) for values in zip(*probe.rounded.values(), strict=True)]


def _closer(probe: Probe, candidate: str, other: str, sigma: float) -> float:
    """The mean of x_t over one answer."""
    columns = zip(
        probe.engine, probe.exact[candidate], probe.exact[other], probe.rounded[candidate], probe.rounded[other], _scale(probe), strict=True
    )
    scores = []
    for engine, exact, exact_other, rounded, rounded_other, scale in columns:
        u = (exact - exact_other) / scale
        z = (engine - (rounded + rounded_other) / 2) / scale
        scores.append(max(-2.0, min(2.0, u * z / (sigma**2 + u * u / 4))))
    return fmean(scores)


def _squares(probe: Probe, name: str, *, exact: bool = False) -> list[float]:
    values = (probe.exact if exact else probe.rounded)[name]
    return [((engine - value) / scale) ** 2 for engine, value, scale in zip(probe.engine, values, _scale(probe), strict=True)]


def _t(values: Sequence[float]) -> float:
    """Student's t of the mean against 0; 0 where nothing differs."""
    error = math.sqrt(variance(values) / len(values))
    return fmean(values) / error if error > 0 else 0.0


def _fits(energies: Sequence[float], base: Sequence[float]) -> float:
    """Welch's t of SLACK times the base's mean energy above the candidate's. An energy below the floor's, 1, counts as 1."""
    level = max(fmean(base), 1.0)
    error = math.sqrt(variance(energies) / len(energies) + SLACK**2 * variance(base) / len(base))
    return (SLACK * level - fmean(energies)) / error if error > 0 else math.copysign(math.inf, SLACK * level - fmean(energies))


def quantile(level: float, freedom: int) -> float:
    """What Student's t with `freedom` degrees exceeds with probability `level`, by the expansion of Abramowitz & Stegun 26.7.5."""
    z = NormalDist().inv_cdf(1 - level)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(term / freedom**power for power, term in enumerate(terms, 1))
