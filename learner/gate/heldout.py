"""The held-out evaluation: frozen prompts and the policy's scorer, candidate against live, paired by prompt and seed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engines import EngineControl
from learner import seeds
from learner.policy.trainer import Trainer
from learner.publication.replicas import live_name
from learner.rewards.python import Scorer
from learner.shadow.shadow import LOW_PRIORITY
from ratchet.config.model import GateConfig
from ratchet.errors import ConfigError, GateRefused

GATE = "heldout"
AT_A_TIME = 8
"""Concurrent prompts for each replica, so that users' requests find room."""
LEAST_SCORED = 0.5
"""Share of the pairs that must have both rewards."""

Rewards = list[float | None]


def read(path: Path) -> list[list[dict[str, Any]]]:
    """Read chats from a JSONL file, one `{"messages": [...]}` per line. Raises ConfigError if it is unreadable, empty or malformed."""
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"gate.heldout {path}: cannot be read ({error})") from error
    chats = [_messages(line, f"{path}, line {number}") for number, line in enumerate(lines, 1)]
    if not chats:
        raise ConfigError(f"gate.heldout {path}: no prompts")
    return chats


class Heldout:
    """The held-out evaluation of one policy's versions. The live version's rewards are kept until another goes live."""

    def __init__(
        self, name: str, seed: int, config: GateConfig, trainer: Trainer, scorer: Scorer, chats: list[list[dict[str, Any]]]
    ) -> None:
        self._name = name
        self._seed = seed
        self._config = config
        self._trainer = trainer
        self._scorer = scorer
        self.chats = chats
        self._ids: list[list[int]] = []
        self._known: dict[int, Rewards] = {}

    async def compare(self, engines: Sequence[EngineControl], candidate: int, live: int) -> dict[str, Any]:
        """Return the mean rewards of both over the pairs in which both have one. Raises GateRefused if too few do, EngineError."""
        for version in (live, candidate):
            if version not in self._known:
                self._known[version] = await self._rewards(engines, version)
        self._known = {version: self._known[version] for version in (live, candidate)}
        return paired(self._known[candidate], self._known[live])

    async def _rewards(self, engines: Sequence[EngineControl], version: int) -> Rewards:
        if not self._ids:
            self._ids = [await self._trainer.encode(chat) for chat in self.chats]
        limit = asyncio.Semaphore(AT_A_TIME * len(engines))
        found = await asyncio.gather(*(self._one(engines[i % len(engines)], version, i, limit) for i in range(len(self.chats))))
        return [reward for rewards in found for reward in rewards]

    async def _one(self, engine: EngineControl, version: int, index: int, limit: asyncio.Semaphore) -> Rewards:
        async with limit:
            samples = await engine.generate(
                live_name(engine, self._name, version),
                self._ids[index],
                n=self._config.samples,
                max_tokens=self._config.max_tokens,
                temperature=1.0,
                seed=seeds.seed_of(self._name, self._seed, GATE, index),
                priority=LOW_PRIORITY,
            )
        return [await asyncio.to_thread(self._scorer.try_score, self.chats[index], sample.text) for sample in samples]


def paired(candidate: Rewards, live: Rewards) -> dict[str, Any]:
    """`{"n", "candidate", "live"}`: the pairs that have both rewards, and their means. GateRefused: fewer than half have."""
    pairs = [(c, old) for c, old in zip(candidate, live, strict=True) if c is not None and old is not None]
    if len(pairs) < LEAST_SCORED * len(live) or not pairs:
        raise GateRefused(GATE, f"only {len(pairs)} of {len(live)} held-out answers could be scored for both versions")
    means = [sum(pair[side] for pair in pairs) / len(pairs) for side in (0, 1)]
    return {"n": len(pairs), "candidate": means[0], "live": means[1]}


def judge(result: dict[str, Any], margin: float) -> None:
    """Raise GateRefused if the candidate is worse than the live version by more than `margin`."""
    if not result["candidate"] >= result["live"] - margin:
        raise GateRefused(
            GATE, f"held-out reward {result['candidate']:.3f} is below the live version's {result['live']:.3f} by more than {margin:g}"
        )


def _messages(line: str, where: str) -> list[dict[str, Any]]:
    try:
        messages = json.loads(line)["messages"]
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f'{where}: not {{"messages": [...]}}') from None
    if not (isinstance(messages, list) and messages and all(isinstance(m, dict) and "role" in m for m in messages)):
        raise ConfigError(f"{where}: `messages` is not a list of messages")
    return messages
