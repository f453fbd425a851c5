"""Check that what is recorded is exactly what the engine drew: `python bench/fidelity.py`. Writes docs/benchmarks.md.

Ask awkward questions (many scripts, emoji, code, empty answers), read the recorded interactions back, and check that the recorded
ids decode to the client's text byte for byte, that the recorded log-probs are those that the learner's model computes at the
recorded version, within the tolerance calibrated on the base, and that nothing is padded. With `--data DIR --config YAML` of a
finished demo its live version is checked beside the base. Exit status 0 only if all of it holds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import section
from bench.awkward import ask
from learner.gate.proof import FLOOR, MARGIN
from learner.policy.model import Policy
from ratchet import models
from ratchet.buffer import open_store
from ratchet.config import LoraConfig, StoreConfig, load
from ratchet.demo import stack
from ratchet.demo.admin import Admin
from ratchet.types import Choice, Interaction, PolicyVersionRecord

NO_TRAINING = "RATCHET_POLICIES__ASSISTANT__SCHEDULE__AUTOMATIC"
CALIBRATION = 20
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
WITHHELD = 3
"""Tokens that may hold the first bytes of one character, which has at most four in UTF-8."""


@dataclass
class Report:
    """What was compared, and what differed. Log-prob differences are in nats, by version.

    `cut`: answers whose token limit fell inside a character, so that the text lacks the last one to three ids.
    """

    interactions: int = 0
    answers: int = 0
    tokens: int = 0
    empty: int = 0
    cut: int = 0
    texts_differ: list[str] = field(default_factory=list)
    padded: list[str] = field(default_factory=list)
    unrecorded: list[str] = field(default_factory=list)
    compared: dict[int, int] = field(default_factory=dict)
    largest: dict[int, float] = field(default_factory=dict)
    calibration: float = 0.0
    """Largest difference on the first interactions of the base, which are not compared."""

    @property
    def tolerance(self) -> float:
        """Nats by which a log-prob may differ, calibrated as for the activation proof."""
        return max(FLOOR, MARGIN * self.calibration)

    @property
    def good(self) -> bool:
        within = all(difference <= self.tolerance for difference in self.largest.values())
        return within and bool(self.largest) and not (self.texts_differ or self.padded or self.unrecorded)


async def measure(config: Path, data: Path, log: Path, count: int) -> tuple[Report, list[Interaction], list[PolicyVersionRecord]]:
    """Ask a running stack `count` questions, and check what does not need the model."""
    async with stack.running(config, data, log) as ready:
        async with Admin(ready.admin, ready.keys.operator) as admin:
            policy = await admin.policy(stack.POLICY)
        pinned = sorted({0, policy.live})
        seen = await ask(ready.gateway, ready.keys.client, [f"{policy.name}@{v}" for v in pinned], count)
        store = await open_store("embedded", StoreConfig(), data=data)
        found = {ident: await store.interactions.get(ident, None) for ident in seen}
        await store.close()
    report = Report()
    recorded = [item for item in found.values() if item is not None]
    report.unrecorded = [ident for ident, item in found.items() if item is None]
    for item in recorded:
        check_shape(item, seen[item.id], report)
    return report, recorded, [v for v in policy.versions if v.version in pinned]


def check_shape(item: Interaction, seen: list[str], report: Report) -> None:
    """Count, and compare what the client saw with what was recorded. Ids and log-probs must pair up, without padding."""
    report.interactions += 1
    if [choice.message.get("content") or "" for choice in item.choices] != seen:
        report.texts_differ.append(f"{item.id}: the client saw another text than was recorded")
    for choice in item.choices:
        report.answers += 1
        report.tokens += len(choice.token_ids)
        paired = len(choice.token_ids) == len(choice.logprobs) > 0 and all(p <= 0 for p in choice.logprobs)
        if not paired or not item.prompt_ids:
            report.padded.append(f"{item.id}/{choice.index}: {len(choice.token_ids)} ids, {len(choice.logprobs)} log-probs")


def check_text(item: Interaction, choice: Choice, decode: Callable[[list[int]], str], report: Report) -> None:
    """Compare the decoded ids with the recorded text."""
    text = choice.message.get("content") or ""
    report.empty += not text
    decoded = decode(choice.token_ids)
    if decoded == text:
        return
    # An engine withholds tokens until they complete a character; at the token limit they never do.
    shorter = [decode(choice.token_ids[:-held]) for held in range(1, WITHHELD + 1)]
    if choice.finish_reason == "length" and decoded.endswith(REPLACEMENT) and text in shorter:
        report.cut += 1
    else:
        report.texts_differ.append(f"{item.id}/{choice.index}: {decoded!r} is not {text!r}")


def largest_difference(model: Policy, item: Interaction) -> float:
    """Largest |recorded - computed| log-prob of an interaction with the model's current weights, in nats."""
    computed, _ = model.log_probs(
        item.prompt_ids, [c.token_ids for c in item.choices], temperature=item.sampling.temperature, adapter=item.version > 0
    )
    pairs = zip(computed, item.choices, strict=True)
    return max(float((row[: len(c.logprobs)] - torch.tensor(c.logprobs)).abs().max()) for row, c in pairs)


def check_log_probs(model: Policy, items: list[Interaction], version: int, report: Report) -> None:
    """Compare the trainable interactions of one version; the first ones of the base calibrate the tolerance instead."""
    trainable = [item for item in items if item.version == version and not item.untrainable]
    if version == 0:
        calibrating, trainable = trainable[:CALIBRATION], trainable[CALIBRATION:]
        report.calibration = max((largest_difference(model, item) for item in calibrating), default=0.0)
    if trainable:
        report.largest[version] = max(largest_difference(model, item) for item in trainable)
        report.compared[version] = sum(len(c.logprobs) for item in trainable for c in item.choices)


def check_with_model(report: Report, items: list[Interaction], versions: list[PolicyVersionRecord], config: Path, data: Path) -> None:
    """Decode every answer, and recompute every trainable one at its version."""
    settings = load(config)
    policy = settings.policies[stack.POLICY]
    lora: LoraConfig = policy.lora
    model = Policy.load(Path(models.resolve(settings.models[policy.base].path)), lora, device="cpu")
    for item in items:
        for choice in item.choices:
            check_text(item, choice, model.decode, report)
    with torch.inference_mode():
        for version in sorted(versions, key=lambda v: v.version):
            if version.version > 0:
                model.load_adapter_files(data / version.path)
            check_log_probs(model, items, version.version, report)


def text(report: Report) -> str:
    """The report as a Markdown table and a paragraph."""
    rows = [[version, report.compared[version], f"{report.largest[version]:.2g}"] for version in sorted(report.largest)]
    table = section.table(("version", "log-probs recomputed", "largest difference, nats"), rows)
    return (
        f"{table}\n\nThe tolerance is {report.tolerance:.2g} nats: {MARGIN:g} times the largest difference on {CALIBRATION} other answers "
        f"of the base, and at least {FLOOR:g}. {report.interactions} interactions, {report.answers} answers, {report.tokens} tokens, "
        f"{report.empty} empty answers; {len(report.texts_differ)} texts differ, {report.cut} answers were cut inside a character at "
        f"their token limit (the text lacks the last one to three ids), {len(report.padded)} have padded or unpaired values, "
        f"{len(report.unrecorded)} were not recorded."
    )


@contextlib.contextmanager
def no_training() -> Iterator[None]:
    """Keep a stack that is started in the context from learning, so that its versions stay those that are measured."""
    os.environ[NO_TRAINING] = "false"
    try:
        yield
    finally:
        del os.environ[NO_TRAINING]


def main() -> int:
    args = _arguments()
    folder = Path(tempfile.mkdtemp(prefix="ratchet-fidelity-"))
    config = args.config or stack.write_configuration(folder, 0)
    data = (args.data or folder / "data").resolve()
    with no_training():
        report, items, versions = asyncio.run(measure(config, data, folder / "up.log", args.count))
    check_with_model(report, items, versions, config, data)
    problems = [*report.texts_differ, *report.padded, *report.unrecorded]
    print(text(report), *problems[:20], sep="\n")
    if args.json is not None:
        args.json.write_text(json.dumps(_plain(report), indent=2))
    if not args.no_docs:
        section.replace("fidelity", "Token fidelity", text(report))
    return 0 if report.good else 1


def _plain(report: Report) -> dict[str, Any]:
    return {**asdict(report), "good": report.good}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="interactions")
    parser.add_argument("--data", type=Path, help="data directory of a finished demo, whose live version is checked too")
    parser.add_argument("--config", type=Path, help="its YAML")
    parser.add_argument("--json", type=Path, help="write the report there")
    parser.add_argument("--no-docs", action="store_true", help="do not write docs/benchmarks.md")
    args = parser.parse_args()
    if (args.data is None) != (args.config is None):
        parser.error("give both --data and --config, or neither")
    return args


if __name__ == "__main__":
    raise SystemExit(main())
