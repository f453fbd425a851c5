"""`ratchet demo`: a support assistant learns a house style while it serves.

The demo starts `ratchet up` as a child process and is only its client: chat through the `openai` SDK, feedback and the admin
API over HTTP.
"""

from __future__ import annotations

from pathlib import Path


def run(json: Path | None, seed: int, out: Path) -> int:
    """Run the demo, write its files under `out` and its figures to `json` too, and return the exit status.

    0 if the held-out reward rose, no request failed and the ledger balances; 1 if not; 130 on Ctrl-C.
    """
    # The learner imports `ratchet.demo.task`, which must not bring the SDK, Rich and matplotlib with it.
    from ratchet.demo.main import run as run_demo

    return run_demo(json, seed, out)
