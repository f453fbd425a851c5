"""What capture costs: microseconds a streamed chunk, on answers that the real vLLM gave.

    python bench/capture.py [--rounds N]

Prints a line a case: the client asked for nothing (the usual), for everything, or under another id and model name.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from time import perf_counter

from engines import Wants, sse
from engines.vllm.capture import ChoicesCapture

RECORDED = Path(__file__).parent.parent / "tests" / "unit" / "engines" / "recorded" / "stop_string.sse"
ID = "chatcmpl-" + "ab" * 16
CASES = {
    "hide ids and log-probs": (Wants(), ID, "smollm2"),
    "client asked for all": (Wants(logprobs=True, token_ids=True, usage=True), ID, "smollm2"),
    "hide, other id and model": (Wants(), "chatcmpl-" + "cd" * 16, "support"),
}


def microseconds(events: list[bytes], case: tuple[Wants, str, str], rounds: int) -> float:
    """The best of seven runs."""
    best = float("inf")
    for _ in range(7):
        began = perf_counter()
        for _ in range(rounds):
            capture = ChoicesCapture(*case)
            for event in events:
                capture.event(event)
        best = min(best, perf_counter() - began)
    return best / rounds / len(events) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description="Microseconds that capture costs a chunk.")
    parser.add_argument("--rounds", type=int, default=300)
    rounds = parser.parse_args().rounds
    events, _ = sse.split(RECORDED.read_bytes())
    for name, case in CASES.items():
        print(f"{name:28} {microseconds(events, case, rounds):6.2f} us/chunk")


if __name__ == "__main__":
    main()
