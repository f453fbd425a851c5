"""Run the demo with several seeds: `python bench/demo_seeds.py --seeds 0 1 2 --out demo-out`. Writes docs/benchmarks.md.

Each run's figures are kept as OUT/seedN.json. Exit status 0 only if every seed reached what is asked of the demo.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import section

RISE = 0.4
SWAPS = 3
MINUTES = 10.0


def main() -> int:
    args = _arguments()
    results = {seed: _result(seed, args.out, reuse=args.reuse) for seed in args.seeds}
    text = section.table(HEAD, [row(seed, found) for seed, found in results.items()])
    missed = [f"seed {seed}: {fault}" for seed, found in results.items() for fault in faults(found)]
    print(text, *missed, sep="\n")
    if not args.no_docs:
        section.replace("demo", "The demo, seeds " + ", ".join(map(str, args.seeds)), "\n\n".join([EXPLAINED, text, *missed]))
    return 1 if missed else 0


HEAD = (
    *(
        "seed",
        "held-out before",
        "after",
        "updates",
        "swaps",
        "requests (streamed)",
        "failed",
        "held in swaps (outside)",
        "swap s, median (max)",
    ),
    *("gap ms, steady p99.9", "gap ms, in swaps max", "proof max diff", "from base, least", "KL", "seconds"),
)
EXPLAINED = (
    "One `make demo` for each seed. Held-out: mean reward of two answers to each of 32 prompts that are not trained on, through the "
    "gateway. Swap: from the start of the adapter's load to the move of the live pointer, with the activation proof and the gate's "
    "evaluation. Gap: "
    "the time between two chunks of one answer. Proof: the largest difference between the engine's and the learner's log-probs over all "
    "versions, and the smallest difference from the base, in nats."
)


def row(seed: int, found: dict[str, Any]) -> list[str]:
    """A seed's row of the table."""
    swaps = sorted(found["swap_seconds"])
    requests, proofs = found["requests"], found["activation"]
    return [
        str(seed),
        f"{found['heldout']['before']:.3f}",
        f"{found['heldout']['after']:.3f}",
        str(found["updates"]),
        str(found["swaps"]),
        f"{requests['total']} ({requests['streamed']})",
        str(requests["failed"]),
        f"{found['held']['during_swap']} ({found['held']['outside']})",
        f"{swaps[len(swaps) // 2]:.1f} ({swaps[-1]:.1f})" if swaps else "-",
        str(found["max_gap_ms"]["steady"]),
        str(found["max_gap_ms"]["during_swap"]),
        f"{max((p['max_abs_logprob_diff'] for p in proofs), default=float('nan')):.2g}",
        f"{min((p['max_abs_diff_from_base'] for p in proofs), default=float('nan')):.2g}",
        "-" if found["kl"] is None else f"{found['kl']:.2f}",
        f"{found['seconds']:.0f}",
    ]


def faults(found: dict[str, Any]) -> list[str]:
    """What a run did not reach, one sentence each; empty if it reached everything."""
    rise = found["heldout"]["after"] - found["heldout"]["before"]
    ledger = found["ledger"]
    accounted = ledger["used"] + ledger["pending"] + sum(ledger["rejected"].values()) + ledger["expired"]
    checks = {
        f"held-out rose by {rise:.3f}, at least {RISE} was expected": rise >= RISE,
        f"{found['requests']['failed']} requests failed": found["requests"]["failed"] == 0,
        f"{found['swaps']} swaps, at least {SWAPS} were expected": found["swaps"] >= SWAPS,
        f"{found['held']['during_swap']} requests held during swaps": found["held"]["during_swap"] == 0,
        f"the ledger does not balance: {ledger}": ledger["received"] == accounted,
        f"it took {found['seconds']:.0f} s": found["seconds"] <= MINUTES * 60,
    }
    return [text for text, good in checks.items() if not good]


def _result(seed: int, out: Path, *, reuse: bool) -> dict[str, Any]:
    path = out / f"seed{seed}.json"
    if not (reuse and path.exists()):
        path.unlink(missing_ok=True)
        command = [sys.executable, "-m", "ratchet", "demo", "--seed", str(seed), "--json", str(path), "--out", str(out / f"run{seed}")]
        subprocess.run(command, check=False)
    if not path.exists():
        raise SystemExit(f"seed {seed}: the demo wrote no figures")
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("demo-out"), help="folder of the runs and their figures")
    parser.add_argument("--reuse", action="store_true", help="use the figures of earlier runs where there are any")
    parser.add_argument("--no-docs", action="store_true", help="do not write docs/benchmarks.md")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
