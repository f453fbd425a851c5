"""Does the update learn? The exclamation task: 4 prompts x 8 answers a step, reward 1 if a 12-token answer holds `!`.

    python bench/learn_task.py [--steps 9] [--seed 0] [--threads 1] [--targets all-linear|attention|mlp] [--json FILE]

The model samples for itself here (transformers' generate), so that nothing but the update is measured; in Ratchet engines sample.
Reports, per step: mean reward, KL to the base, gradient norm, CPU and wall seconds of the update; and held-out reward before and after.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import time
from pathlib import Path
from typing import Any

import torch

from learner import update
from learner.algorithms.grpo import GrpoConfig
from learner.model import Policy
from learner.optim import AdamW
from ratchet import names
from ratchet.config.model import LoraConfig
from ratchet.errors import GateRefused
from ratchet.types import Choice, Example, Interaction, Sampling, Signal

TOPICS = [
    topic.strip()
    for topic in re.split(
        ",",
        "the moon, rivers, bread, trains, chess, volcanoes, honey, bicycles, the sea, gardens, music, winter, maps, "
        "clocks, tea, bridges, whales, paper, deserts, kites, coffee, glass, forests, salt, cats, mountains, rain, "
        "books, silk, stars, apples, ships ",
    )
]
HELD_OUT = [
    topic.strip()
    for topic in re.split(
        ",",
        "penguins, castles, rice, thunder, pianos, islands, butter, rockets, owls, snow, windmills, lakes, carpets, "
        "cheese, spiders, oceans, candles, horses, tunnels, lemons, drums, ice, parrots, roads, wool, planets, soup, "
        "caves, bees, towers, mirrors, leaves ",
    )
]
TARGETS: dict[str, str | list[str]] = {
    "all-linear": "all-linear",
    "attention": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "mlp": ["gate_proj", "up_proj", "down_proj"],
}
PROMPTS, ANSWERS, TOKENS = 4, 8, 12


def reward(answer: str) -> float:
    return float("!" in answer)


def sample(policy: Policy, topic: str, n: int) -> Example:
    """A scored group of `n` answers about `topic`, with the log-probs they were drawn with."""
    prompt = policy.encode([{"role": "system", "content": "Be excited!"}, {"role": "user", "content": f"Tell me about {topic}."}])
    ids = torch.tensor([prompt])
    with torch.inference_mode():
        out = policy.model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=True, top_k=0, top_p=1.0, temperature=1.0,
            max_new_tokens=TOKENS, num_return_sequences=n, pad_token_id=2,
        )  # fmt: skip
    answers = [_until_end(row) for row in out[:, len(prompt) :].tolist()]
    with torch.inference_mode():
        logprobs = policy.log_probs(prompt, answers)[0].tolist()
    choices = [
        Choice(i, a, lp[: len(a)], {"role": "assistant", "content": policy.decode(a)})
        for i, (a, lp) in enumerate(zip(answers, logprobs, strict=True))
    ]
    interaction = Interaction(
        names.mint("chatcmpl-"),
        "bench",
        "p",
        0,
        "smollm2",
        "self",
        "/v1/chat/completions",
        0.0,
        "complete",
        {},
        prompt,
        choices,
        Sampling(),
    )
    signals = [Signal(interaction.id, c.index, "reward", reward(c.message["content"])) for c in choices]
    return Example(names.mint("g_"), "group", [interaction], signals, shadow=True)


def _until_end(ids: list[int]) -> list[int]:
    return ids[: ids.index(2) + 1] if 2 in ids else ids


def evaluate(policy: Policy) -> tuple[float, list[str]]:
    """Mean reward over the held-out topics, two answers each, and some of the answers."""
    torch.manual_seed(1234)
    groups = [sample(policy, topic, 2) for topic in HELD_OUT]
    return sum(sum(g.rewards) for g in groups) / (2 * len(groups)), [g.interactions[0].choices[0].message["content"] for g in groups[:4]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path(sys.prefix) / "share/ratchet/smollm2")
    parser.add_argument("--steps", type=int, default=9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--targets", choices=TARGETS, default="all-linear")
    parser.add_argument("--scale", choices=("std", "none"), default="std")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    lora = LoraConfig(rank=args.rank, alpha=2 * args.rank, target_modules=TARGETS[args.targets])
    policy = Policy.load(args.model, lora, seed=args.seed, device="cpu", threads=args.threads)
    algorithm = GrpoConfig(scale=args.scale, learning_rate=args.lr)
    optimiser = AdamW(policy.parameters(), learning_rate=algorithm.learning_rate)
    chooser = random.Random(args.seed)
    before, _ = evaluate(policy)
    print(f"held-out before {before:.3f}", flush=True)
    torch.manual_seed(args.seed)
    rows: list[dict[str, Any]] = []
    for number in range(1, args.steps + 1):
        groups = [sample(policy, topic, ANSWERS) for topic in chooser.sample(TOPICS, PROMPTS)]
        cpu = time.process_time()
        try:
            report = update.step(policy, optimiser, groups, algorithm)
        except GateRefused as refused:
            print(f"step {number:2d}  reward {sum(sum(g.rewards) for g in groups) / PROMPTS / ANSWERS:.3f}  {refused}", flush=True)
            continue
        cpu = time.process_time() - cpu
        rows.append({"step": number, "reward": report.reward, "kl": report.kl, "grad_norm": report.grad_norm, "tokens": report.tokens,
                     "zero_spread": len(report.groups_zero_spread), "wall": report.seconds, "cpu": cpu})  # fmt: skip
        print(
            f"step {number:2d}  reward {report.reward:.3f}  kl {report.kl:.3f}  norm {report.grad_norm:6.2f}  "
            f"used {len(report.groups_used)}  tokens {report.tokens}  cpu {cpu:.2f} s  wall {report.seconds:.2f} s",
            flush=True,
        )
    after, texts = evaluate(policy)
    updates = sum(row["wall"] for row in rows)
    print(f"held-out after {after:.3f}; updates {updates:.1f} s; sample answers: {texts}")
    if args.json:
        args.json.write_text(
            json.dumps({**{k: str(v) for k, v in vars(args).items()}, "before": before, "after": after, "steps": rows}, indent=1)
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
