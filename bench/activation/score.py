"""The learner's float32 log-probs of what an engine drew, under the versions it might have been.

    python -m bench.activation.score ADAPTERS RAW DTYPE [--bfloat16]

For each `RAW/DTYPE/NAME.json` of `bench.activation.record`: the log-probs of the same tokens under the base, each version of the
lineage, and the version of the same number of two other lineages, one of the same learning rate and one of the next.
`--bfloat16`: the learner computes in bfloat16 as such an engine does, base and adapter both rounded. Writes
`RAW/DTYPE/NAME.scores.json`, or `NAME.rounded.json`. What is there already is not computed again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from bench.activation.train import LINEAGES, LORA, VERSIONS, place
from learner.policy.model import Policy
from ratchet.models import resolve

BASE = "base"


def hypotheses(name: str, *, near: bool) -> list[tuple[int, float, int]]:
    """What the tokens of `name` are scored under, besides the base; `near`: fewer, as a rounded pass takes twice as long."""
    if name == BASE:
        return [(seed, rate, version) for seed, rate in LINEAGES for version in range(1, VERSIONS + 1)]
    lineage, version = name.split("@")
    index = [f"{seed}-{rate:g}" for seed, rate in LINEAGES].index(lineage)
    others = [index ^ 1, (index + 2) % len(LINEAGES)]
    around = [v for v in range(1, VERSIONS + 1) if not near or abs(v - int(version)) <= 1]
    return [(*LINEAGES[index], v) for v in around] + [(*LINEAGES[i], int(version)) for i in others[: 1 if near else 2]]


def to_bfloat16(policy: Policy) -> None:
    """Makes it compute as a bfloat16 engine: weights, adapter and activations rounded, the logits made float32 before the softmax."""
    policy.model.to(torch.bfloat16)
    policy.model.get_output_embeddings().register_forward_hook(lambda module, given, logits: logits.float())


def log_probs(policy: Policy, answers: list[dict[str, Any]], *, adapter: bool) -> list[float]:
    """One value a token, answers in order."""
    found: list[float] = []
    with torch.inference_mode():
        for _, items in groupby(answers, key=lambda answer: answer["prompt"]):
            group = list(items)
            values, mask = policy.log_probs(group[0]["prompt"], [answer["answer"] for answer in group], adapter=adapter)
            found += values[mask].tolist()
    return found


def score(policy: Policy, adapters: Path, name: str, answers: list[dict[str, Any]], *, near: bool) -> dict[str, list[float]]:
    """Log-probs by hypothesis."""
    answers = [a for a in answers if a["answer"]]
    found = {BASE: log_probs(policy, answers, adapter=False)}
    for seed, rate, version in hypotheses(name, near=near):
        policy.load_adapter_files(place(adapters, seed, rate, version))
        found[f"{seed}-{rate:g}@{version}"] = log_probs(policy, answers, adapter=True)
    return found


def names() -> list[str]:
    """Every version, and the base last, as its tokens are scored under every version."""
    return [f"{seed}-{rate:g}@{version}" for seed, rate in LINEAGES for version in range(1, VERSIONS + 1)] + [BASE]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("adapters", type=Path)
    parser.add_argument("raw", type=Path)
    parser.add_argument("dtype")
    parser.add_argument("--bfloat16", action="store_true")
    parser.add_argument("--names", nargs="*", default=names())
    args = parser.parse_args()
    policy = Policy.load(Path(resolve("smollm2")), LORA, device="cpu", threads=1)
    if args.bfloat16:
        to_bfloat16(policy)
    for name in args.names:
        source = args.raw / args.dtype / f"{name}.json"
        target = source.with_suffix(".rounded.json" if args.bfloat16 else ".scores.json")
        if not target.exists():
            began = time.monotonic()
            target.write_text(json.dumps(score(policy, args.adapters, name, json.loads(source.read_text()), near=args.bfloat16)))
            print(f"{target}: {time.monotonic() - began:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
