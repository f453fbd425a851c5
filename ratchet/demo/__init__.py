"""`ratchet demo`: a support assistant learns a house style while it serves, seen only from outside.

A client of `ratchet up`, which it starts as a child: chat through the `openai` SDK, feedback and the admin API over HTTP.
"""

from __future__ import annotations

from pathlib import Path


def run(json: Path | None, seed: int, out: Path) -> int:
    """Runs the demo with `seed`, its files under `out` and its figures in `json` as well.

    Returns the exit code: 0 if held-out reward rose, no request failed and the ledger balances; 1 if not; 130 on Ctrl-C.
    """
    # The learner imports `ratchet.demo.task`: the SDK, Rich and matplotlib must not come with it.
    from ratchet.demo.main import run as run_demo

    return run_demo(json, seed, out)
