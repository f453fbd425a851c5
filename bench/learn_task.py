"""Does the update learn? The exclamation task: 4 prompts x 8 answers a step, reward 1 if a 12-token answer holds `!`.

    python bench/learn_task.py [--steps 9] [--seed 0] [--algorithm grpo --set epochs=2] [--targets attention] [--json FILE]

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
import yaml

from learner import update
from learner.algorithms.base import Algorithm
from learner.examples import mean_reward
from learner.policy.model import Policy
from learner.policy.optim import AdamW
from ratchet import names
from ratchet.config import ALGORITHMS, LoraConfig
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


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path(sys.prefix) / "share/ratchet/smollm2")
    parser.add_argument("--steps", type=int, default=9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--targets", choices=TARGETS, default="all-linear")
    parser.add_argument("--algorithm", default="grpo", help="one that learns from groups")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a key of the algorithm's configuration")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def learn(policy: Policy, algorithm: Algorithm[Any], steps: int, seed: int) -> list[dict[str, Any]]:
    """Sample, update, print a line, step after step; a row for each step that was made."""
    config = algorithm.config
    optimiser = AdamW(
        policy.parameters(),
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
    )
    chooser = random.Random(seed)
    torch.manual_seed(seed)
    state: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    for number in range(1, steps + 1):
        groups = [sample(policy, topic, ANSWERS) for topic in chooser.sample(TOPICS, PROMPTS)]
        found = algorithm.examine(groups, policy.window)
        print(f"step {number:2d}  reward {mean_reward(groups):.3f}", end="  ", flush=True)
        if not found.teach:
            print(f"nothing teaches: {sorted(set(found.aside.values()))}", flush=True)
            continue
        cpu = time.process_time()
        report = update.step(policy, optimiser, found.teach, algorithm, state=state)
        cpu, state = time.process_time() - cpu, report.state
        rows.append({"step": number, "reward": mean_reward(groups), "kl": report.kl, "grad_norm": report.grad_norm,
                     "tokens": report.tokens, "aside": len(found.aside), "wall": report.seconds, "cpu": cpu})  # fmt: skip
        print(
            f"kl {report.kl or 0:.3f}  norm {report.grad_norm:6.2f}  used {len(report.learned)}  tokens {report.tokens}  "
            f"cpu {cpu:.2f} s  wall {report.seconds:.2f} s",
            flush=True,
        )
    return rows


def main() -> int:
    args = options()
    lora = LoraConfig(rank=args.rank, alpha=2 * args.rank, target_modules=TARGETS[args.targets])
    policy = Policy.load(args.model, lora, seed=args.seed, device="cpu", threads=args.threads)
    keys = {key: yaml.safe_load(value) for key, _, value in (text.partition("=") for text in args.set)}
    algorithm = ALGORITHMS.model(args.algorithm).model_validate(keys).make()
    before, _ = evaluate(policy)
    print(f"held-out before {before:.3f}", flush=True)
    rows = learn(policy, algorithm, args.steps, args.seed)
    after, texts = evaluate(policy)
    print(f"held-out after {after:.3f}; updates {sum(row['wall'] for row in rows):.1f} s; sample answers: {texts}")
    if args.json:
        args.json.write_text(
            json.dumps({**{k: str(v) for k, v in vars(args).items()}, "before": before, "after": after, "steps": rows}, indent=1)
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
