"""Shadow groups: recorded live prompts resampled at the live version while an engine has room, and scored by reward functions."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter

from engines import EngineControl, Load
from learner import seeds
from learner.loop.leasing import Leasing
from learner.loop.status import Status
from learner.publication.replicas import Replicas, live_name
from learner.rewards.python import Scorer, Unscored
from learner.shadow import resample
from ratchet import failpoints
from ratchet.buffer import Store
from ratchet.config.model import PolicyConfig, ShadowConfig
from ratchet.errors import EngineError
from ratchet.types import Interaction, PolicyRecord

log = logging.getLogger(__name__)

LOW_PRIORITY = 10
"""Priority of these requests. Engines with priorities serve users (0) first."""
BUSY_SECONDS = 0.5
"""Seconds before an engine without room is checked again, or prompts are looked for after there were none."""


class Shadow:
    """Creates the shadow groups of one policy."""

    def __init__(
        self, name: str, config: PolicyConfig, *, store: Store, replicas: Replicas, scorer: Scorer, leasing: Leasing, status: Status
    ) -> None:
        self._name = name
        self._config = config
        self._store = store
        self._replicas = replicas
        self._scorer = scorer
        self._leasing = leasing
        self._status = status
        self._rounds: Counter[tuple[int, str]] = Counter()
        self.active = False

    @property
    def enabled(self) -> bool:
        """Whether shadow groups are used: they need a scorer, and an algorithm that takes groups."""
        return self._config.shadow.enabled and bool(self._scorer) and self._leasing.takes("group")

    async def once(self) -> int:
        """Resample as many prompts as are needed and the engines have room for. Return the number of groups stored.

        Raises StoreUnavailable, and EngineError if an engine does not report its load.
        """
        record = await self._store.registry.policy(self._name)
        missing = 0 if record is None else await self._leasing.missing()
        if record is None or missing <= 0:
            return 0
        engines = await self._replicas.ready(self._config.base)
        rooms = [room(await engine.metrics(), self._config.shadow) for engine in engines]
        added = await asyncio.gather(*(self._on(e, record, min(missing, k)) for e, k in zip(engines, rooms, strict=True) if k > 0))
        self.active = any(added)
        return sum(added)

    async def _on(self, engine: EngineControl, record: PolicyRecord, k: int) -> int:
        prompts = await self._store.experience.prompts(self._name, k)
        return sum(await asyncio.gather(*(self._group(engine, record, prompt) for prompt in prompts)))

    async def _group(self, engine: EngineControl, record: PolicyRecord, source: Interaction) -> int:
        step = record.step
        turn = self._rounds[(step, source.id)]
        self._rounds = Counter({key: n for key, n in self._rounds.items() if key[0] == step}) + Counter([(step, source.id)])
        key = (self._name, self._config.seed, step, source.id, turn)
        sampled = await self._sampled(engine, record, source, seeds.seed_of(*key), seeds.shadow_id(*key))
        if sampled is None:
            return 0
        rewards = await self._rewards(sampled)
        if rewards is None:
            return 0
        failpoints.hit("learner.before_shadow")
        await self._store.experience.add_shadow(sampled, rewards)
        failpoints.hit("learner.after_shadow")
        self._leasing.sampled(resample.group(sampled, rewards))
        return 1

    async def _sampled(self, engine: EngineControl, record: PolicyRecord, source: Interaction, seed: int, ident: str) -> Interaction | None:
        config = self._config.shadow
        limit = resample.max_tokens_of(source, config.max_tokens)
        try:
            samples = await engine.generate(
                live_name(engine, self._name, record.live),
                source.prompt_ids,
                n=config.group_size,
                max_tokens=limit,
                temperature=resample.temperature_of(source),
                seed=seed,
                priority=LOW_PRIORITY,
            )
        except EngineError as error:
            # The version is not loaded yet, the prompt is too long, or the engine stopped: the prompt will be offered again.
            log.info("%s: a prompt was not resampled on %s: %s", self._name, engine.record.name, error)
            self._status.skip("engine")
            return None
        return resample.interaction(source, samples, ident=ident, version=record.live, engine=engine.record.name, max_tokens=limit)

    async def _rewards(self, sampled: Interaction) -> list[float] | None:
        answers = [str(choice.message["content"]) for choice in sampled.choices]
        try:
            return await asyncio.to_thread(self._scorer.score_all, resample.messages_of(sampled), answers)
        except Unscored as error:
            self._status.skip(error.reason)
            return None


def room(load: Load, config: ShadowConfig) -> int:
    """Return how many groups an engine may get now: none while a request waits or more than `busy_share` of its slots are used."""
    if load.waiting > 0:
        return 0
    if load.slots == 0:
        return 1 if load.running == 0 else 0
    if load.running / load.slots > config.busy_share:
        return 0
    return max(1, (int(load.slots * config.busy_share) - load.running) // config.group_size)
