"""The examples of a step: leased until enough of them teach. The others are set aside, each with a reason."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from learner.algorithms.base import Examined
from learner.examples import mean_reward
from learner.loop.ownership import Ownership
from learner.loop.status import Status
from learner.policy.trainer import Trainer
from learner.publication import publish
from ratchet.buffer import Store
from ratchet.config.model import PolicyConfig
from ratchet.types import Example, ExampleKind, Lease, PolicyRecord

AHEAD = 2
"""A step learns from at most this many times `min_groups` examples; shadow groups are created until as many are ready."""
CROWDED = 4
"""No shadow groups are created while this many times as many are ready, however few of them teach."""
ROUNDS = 16
"""How often a lease may grow while too few of its examples teach. Bounds memory if thousands do not."""


@dataclass(frozen=True)
class Lesson:
    """What a step learns from: `examples`, and the rest of its lease in `aside`, by id, with the reason in a word.

    `reward` is the mean over the whole lease: without the groups that teach nothing, since all their answers are equally good or
    bad, it would be biased.
    """

    step: int
    examples: list[Example]
    aside: dict[str, str]
    reward: float | None


class Leasing:
    """Leases the examples of one policy's steps."""

    def __init__(self, name: str, config: PolicyConfig, *, store: Store, ownership: Ownership, trainer: Trainer, status: Status) -> None:
        self._name = name
        self._schedule = config.schedule
        self._store = store
        self._ownership = ownership
        self._trainer = trainer
        self._algorithm = trainer.algorithm
        self._status = status
        self._idle = 0

    def takes(self, kind: ExampleKind) -> bool:
        """Whether the algorithm learns from examples of this kind."""
        return kind in self._algorithm.kinds

    async def ready(self) -> int:
        """How many examples of the algorithm's kinds are ready, whether they teach or not."""
        return await self._store.experience.ready(self._name, self._algorithm.kinds)

    async def missing(self) -> int:
        """How many groups to sample: until the next step's are ready, not counting those that are known to teach nothing."""
        ready = await self.ready()
        return max(0, min(self._room - (ready - self._idle), CROWDED * self._room - ready))

    def sampled(self, group: Example) -> None:
        """Note a new group: one that teaches nothing does not count towards the next step."""
        self._idle += len(self._algorithm.examine([group], sys.maxsize).aside)

    async def next(self, record: PolicyRecord) -> Lesson | None:
        """Lease what the next step learns from, or None while too few examples teach.

        At least `min_groups` must; one after `ratchet train`. A lease from before a crash is resumed, unchanged if enough of it teaches.
        """
        lease = await self._held(record.step + 1)
        requested = bool(lease and lease.job) or await self._store.registry.requested_training(self._name) is not None
        least = 1 if requested else self._schedule.min_groups
        if lease is None and (await self.ready() < least or not (requested or self._schedule.automatic)):
            return None
        kinds = await self._kinds(record)
        if lease is not None:
            return await self._enough(lease, kinds, least, wanted=least)
        lease = await self._store.experience.lease(
            self._name, record.step + 1, kinds=kinds, max_examples=self._room, min_examples=least, token=self._ownership.token
        )
        return None if lease is None else await self._enough(lease, kinds, least, wanted=self._room)

    @property
    def _room(self) -> int:
        return AHEAD * self._schedule.min_groups

    async def _held(self, step: int) -> Lease | None:
        """The lease that the step already holds, if any. `max_examples` 0 prevents a new one."""
        return await self._store.experience.lease(self._name, step, kinds={}, max_examples=0, token=self._ownership.token)

    async def _kinds(self, record: PolicyRecord) -> dict[ExampleKind, int]:
        """The oldest version whose answers may be learned from, for each kind that the algorithm takes."""
        keep = self._schedule.max_staleness
        oldest = publish.oldest_learnable(record, await self._store.registry.retained(self._name, keep), keep)
        return {kind: oldest if age == "fresh" else 0 for kind, age in self._algorithm.kinds.items()}

    async def _enough(self, lease: Lease, kinds: dict[ExampleKind, int], least: int, *, wanted: int) -> Lesson | None:
        """Add to the lease until `wanted` examples teach or no more are ready. With fewer than `least`, give it up."""
        window = await self._trainer.window()
        found = self._examined(lease, window)
        for _ in range(ROUNDS):
            if len(found.teach) >= wanted:
                break
            room, token = self._room - len(found.teach), self._ownership.token
            grown = await self._store.experience.more(self._name, lease.step, kinds=kinds, max_examples=room, token=token)
            if len(grown.examples) == len(lease.examples):
                break
            lease, found = grown, self._examined(grown, window)
        if len(found.teach) < least:
            await self._give_up(lease.step, found)
            return None
        return Lesson(lease.step, found.teach, found.aside, mean_reward(lease.examples))

    def _examined(self, lease: Lease, window: int) -> Examined:
        self._idle = 0  # what teaches nothing has left the queue
        return self._algorithm.examine(lease.examples, window)

    async def _give_up(self, step: int, found: Examined) -> None:
        """Reject what does not teach, so that it is not looked at again; what does is ready again for a larger lease."""
        await self._store.experience.reject(self._name, step, found.aside, self._ownership.token)
        self.set_aside(found.aside)
        await self._store.experience.release(self._name, self._ownership.token)

    def set_aside(self, aside: dict[str, str]) -> None:
        """Count, in the status, the examples that were rejected."""
        for reason in aside.values():
            self._status.skip(reason)
