"""The demo's figures as the contract's JSON, and the reasons for which it failed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ratchet.demo import gaps
from ratchet.demo.admin import Policy, kl
from ratchet.demo.exchange import Log
from ratchet.demo.heldout import Scored
from ratchet.types import Ledger


@dataclass
class Outcome:
    """Everything a run measured. `stopped` says why training ended."""

    model: str
    engine: str
    seed: int
    policy: Policy
    before: Scored
    after: Scored
    log: Log
    ledger: Ledger
    held: dict[str, int]
    seconds: float
    stopped: str = ""


def figures(outcome: Outcome) -> dict[str, Any]:
    """Return the contract's JSON.

    `heldout.n` is the number of answers on each side. `kl` is the live version's, to the base, in nats a token. `swap_seconds`
    are from the start of a load to the flip. `held` counts the requests that the gateway delayed by over 50 ms, during swaps
    and at other times.
    """
    windows = outcome.policy.windows
    return {
        "model": outcome.model,
        "engine": outcome.engine,
        "updates": len(outcome.policy.learned),
        "swaps": len(windows),
        "heldout": {"n": outcome.after.n, "before": round(outcome.before.mean, 4), "after": round(outcome.after.mean, 4)},
        "kl": kl(outcome.policy.current),
        "requests": outcome.log.counts,
        "swap_seconds": [round(window.end - window.start, 3) for window in windows],
        "max_gap_ms": gaps.summary(outcome.log.gaps, windows),
        "activation": activation(outcome.policy),
        "ledger": ledger(outcome.ledger),
        "seconds": round(outcome.seconds, 1),
        "held": outcome.held,
    }


def activation(policy: Policy) -> list[dict[str, Any]]:
    """Return the activation proof of each version on each replica."""
    keys = ("replica", "max_abs_logprob_diff", "max_abs_diff_from_base")
    return [
        {"version": v.version, **{key: proof.get(key) for key in keys}} for v in policy.learned for proof in v.verdict.get("proof") or []
    ]


def ledger(counts: Ledger) -> dict[str, Any]:
    """Return the ledger as `GET /admin/ledger` does."""
    return {
        "received": counts.received,
        "used": counts.used,
        "pending": counts.pending,
        "rejected": dict(counts.rejected),
        "expired": counts.expired,
    }


def faults(outcome: Outcome) -> list[str]:
    """Return the reasons for which the demo failed, a line each; none if it succeeded."""
    found = []
    if not outcome.after.mean > outcome.before.mean:
        found.append(f"held-out reward did not rise: {outcome.before.mean:.3f} before, {outcome.after.mean:.3f} after")
    failures = outcome.log.failures
    if failures:
        found.append(f"{len(failures)} requests failed, the first: {failures[0]}")
    if not outcome.ledger.balances:
        found.append(f"the ledger does not balance: {ledger(outcome.ledger)}")
    if outcome.ledger.received != outcome.log.posted:
        found.append(f"the ledger received {outcome.ledger.received} rewards; {outcome.log.posted} were acknowledged")
    return found


def samples(outcome: Outcome, count: int = 8) -> list[tuple[str, str, str]]:
    """Return topic, answer before and answer after for the first held-out topics that both versions answered."""
    before, after = outcome.before.answers, outcome.after.answers
    shared = [topic for topic in before if before[topic] and after.get(topic)]
    return [(topic, before[topic][0], after[topic][0]) for topic in shared[:count]]
