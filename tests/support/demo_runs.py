"""Runs of the demo as its parts report them."""

from __future__ import annotations

from typing import Any

from ratchet.demo.admin import Policy
from ratchet.demo.exchange import Exchange, Log
from ratchet.demo.gaps import Stamp
from ratchet.demo.heldout import Scored
from ratchet.demo.report.outcome import Outcome
from ratchet.types import Ledger, PolicyVersionRecord


def version(number: int, *, state: Any = "retired", parent: int | None = None, gate: float = 0.5, at: float = 0.0) -> PolicyVersionRecord:
    """A version whose load began at `at` (wall seconds) and took two seconds to go live."""
    swap = {"load_started": at, "flipped": at + 2.0, "load_seconds": {"local": 0.1}} if state != "refused" else {"load_started": at}
    proof = {"replica": "local", "max_abs_logprob_diff": 0.01 * number, "max_abs_diff_from_base": 1.5, "tolerance": 0.05}
    verdict = {
        "passed": state != "refused",
        "heldout": {"n": 16, "candidate": gate, "live": 0.1},
        "proof": [proof],
        "kl": 0.2 * number,
        "swap": swap,
    }
    if state == "refused":
        verdict |= {"gate": "heldout", "why": "held-out fell <b>"}
    return PolicyVersionRecord(
        "assistant",
        number,
        state,
        1.0,
        parent,
        f"adapters/assistant/{number}",
        f"{number:064x}",
        number,
        "",
        [f"g{number}"],
        gate,
        0.1,
        verdict,
    )


def policy(live: int = 3) -> Policy:
    """The base, three versions that went live one after the other, and a refused one between."""
    base = PolicyVersionRecord("assistant", 0, "retired", 1.0)
    versions = [
        base,
        version(1, parent=0, gate=0.3, at=100),
        version(2, state="refused", parent=1, gate=0.1, at=110),
        version(3, state="live", parent=1, gate=0.95, at=120),
    ]
    status = {"phase": "sampling", "reward": 0.4, "kl": 0.2, "tokens_per_s": 31.0, "why": "waiting for groups"}
    return Policy("assistant", "smollm2", live, versions, 3, status)


def log() -> Log:
    """Two streamed answers, one of them through a swap, and two acknowledged rewards."""
    calm = Exchange("refunds", "assistant", True, Stamp(10, 10), id="chatcmpl-1", tokens=12)
    calm.stamps = {0: [Stamp(11, 11), Stamp(11.1, 11.1), Stamp(11.2, 11.2)]}
    swapped = Exchange("returns", "assistant", True, Stamp(119, 119), id="chatcmpl-2", tokens=12)
    swapped.stamps = {0: [Stamp(119.9, 119.9), Stamp(120.6, 120.6)]}
    return Log([calm, swapped], posted=2)


def outcome(**changes: Any) -> Outcome:
    """A run that succeeded, but for `changes`."""
    fields: dict[str, Any] = {
        "model": "smollm2",
        "engine": "vllm",
        "seed": 0,
        "policy": policy(),
        "before": Scored("assistant@0", {"a flat tyre": ["Certainly.", "Well."], "recycling": ["<script>[/b]", "No."]}),
        "after": Scored("assistant@3", {"a flat tyre": ["Wow!", "Great!"], "recycling": ["Yes!", "Sure."]}),
        "log": log(),
        "ledger": Ledger(received=2, used=1, pending=1),
        "held": {"during_swap": 0, "outside": 0},
        "seconds": 300.04,
    }
    return Outcome(**{**fields, **changes})
