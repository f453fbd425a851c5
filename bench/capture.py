"""Measure what capture costs a streamed chunk: `python bench/capture.py`. Writes docs/benchmarks.md.

The chunks are those of an answer that the real vLLM gave; the cases differ in what the client asked to see.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from time import process_time

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import section
from engines import Wants, sse
from engines.vllm.capture import ChoicesCapture

RECORDED = Path(__file__).parent.parent / "tests" / "support" / "recorded" / "stop_string.sse"
ID = "chatcmpl-" + "ab" * 16
CASES = {
    "hide ids and log-probs": (Wants(), ID, "smollm2"),
    "show all that the engine sent": (Wants(logprobs=True, token_ids=True, usage=True), ID, "smollm2"),
    "hide ids and log-probs, rewrite the id and the model's name": (Wants(), "chatcmpl-" + "cd" * 16, "support"),
}
RUNS = 7


def microseconds(events: list[bytes], case: tuple[Wants, str, str], rounds: int) -> float:
    """CPU us a chunk: the lowest of RUNS runs."""
    best = float("inf")
    for _ in range(RUNS):
        began = process_time()
        for _ in range(rounds):
            capture = ChoicesCapture(*case)
            for event in events:
                capture.event(event)
        best = min(best, process_time() - began)
    return best / rounds / len(events) * 1e6


def text(costs: Mapping[str, float], count: int) -> str:
    """The section of the page."""
    return (
        "CPU us for parsing a chunk, keeping its ids and log-probs, and writing what the client may see: the lowest of "
        f"{RUNS} runs over the {count} chunks of an answer that vLLM gave.\n\n"
        + section.table(("case", "us a chunk"), [(name, f"{cost:.2f}") for name, cost in costs.items()])
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=300, help="times that the answer is captured in a run")
    parser.add_argument("--no-docs", action="store_true", help="do not write docs/benchmarks.md")
    args = parser.parse_args()
    events, _ = sse.split(RECORDED.read_bytes())
    found = text({name: microseconds(events, case, args.rounds) for name, case in CASES.items()}, len(events))
    print(found)
    if not args.no_docs:
        section.replace("capture", "Capture of a streamed chunk", found)


if __name__ == "__main__":
    main()
