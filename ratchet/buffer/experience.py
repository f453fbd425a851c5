"""What the learner learns from: ready examples, the lease of a step, prompts to resample."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

import msgspec

from ratchet import names
from ratchet.buffer import schema
from ratchet.buffer.interactions import Interactions
from ratchet.buffer.link import Link
from ratchet.errors import StoreError
from ratchet.types import Example, ExampleKind, Interaction, Lease, Signal


class Experience:
    """The examples of all policies, in a queue for each policy and kind."""

    def __init__(self, link: Link, interactions: Interactions) -> None:
        self._link = link
        self._interactions = interactions

    async def add_shadow(self, interaction: Interaction, rewards: list[float]) -> str:
        """Add a scored shadow group, which is ready at once. Return its id. `rewards` [n] has one for each choice. Idempotent by id."""
        if interaction.tenant != schema.SHADOW_TENANT:
            raise ValueError(f"{interaction.id}: a shadow group's tenant is {schema.SHADOW_TENANT!r}")
        if len(rewards) != interaction.n:
            raise ValueError(f"{interaction.id}: {len(rewards)} rewards for {interaction.n} choices")
        await self._link.run(
            "add_shadow",
            schema.pack(interaction),
            id=interaction.id,
            tenant=interaction.tenant,
            policy=interaction.policy,
            version=interaction.version,
            n=interaction.n,
            rewards=msgspec.json.encode([repr(float(reward)) for reward in rewards]).decode(),
        )
        return interaction.id

    async def ready(self, policy: str, kinds: Iterable[ExampleKind]) -> int:
        """Return how many examples of these kinds are ready. Some may turn out stale or expired at the lease."""
        wanted = [("ZCARD", schema.ready(policy, kind)) for kind in kinds]
        return sum(await self._link.together(*wanted, atomic=True)) if wanted else 0

    async def lease(
        self,
        policy: str,
        step: int,
        *,
        kinds: Mapping[ExampleKind, int],
        max_examples: int,
        min_examples: int = 1,
        token: int | None = None,
    ) -> Lease | None:
        """Lease examples for `step`. Return None while fewer than `min_examples` are ready.

        `kinds` maps each kind to learn from to the oldest version whose answers may be used; kinds are taken in turn. The step
        that holds a lease gets the same one again, after a crash too. Examples that older versions answered become
        `rejected: {stale}`, those whose interactions expired `rejected: {interaction_expired}`. A new lease ends the request for a
        step (`registry.request_training`). Raises Conflict while another step holds the lease, or if `token` is not current.
        """
        return await self._lease(policy, step, kinds=dict(kinds), max_examples=max_examples, min_examples=min_examples, token=token)

    async def more(self, policy: str, step: int, *, kinds: Mapping[ExampleKind, int], max_examples: int, token: int | None = None) -> Lease:
        """Add up to `max_examples` to the lease of `step`, durably. Return the whole lease; unchanged if no more are ready.

        Raises Conflict if the step holds no lease or is committed, or if `token` is not current.
        """
        found = await self._lease(policy, step, kinds=dict(kinds), max_examples=max_examples, grow=names.mint("more_"), token=token)
        return cast(Lease, found)

    async def reject(self, policy: str, step: int, reasons: Mapping[str, str], token: int | None = None) -> None:
        """Take examples, by id, out of the lease of `step`. Their rewards become `rejected: {reason}`.

        If none remain the lease ends without a version, and a request for a step that it had ended waits again. Ids that are not
        in the lease are ignored, so the same call twice is one. Raises Conflict if another step holds the lease, the step is
        committed, or `token` is not current.
        """
        await self._link.run("reject", policy=policy, step=step, reasons=dict(reasons), token=token)

    async def release(self, policy: str, token: int | None = None) -> None:
        """Give the lease up: its examples are ready again and their rewards pending.

        Raises Conflict once its step is committed, or if `token` is not current.
        """
        await self._link.run("release", policy=policy, token=token)

    async def prompts(self, policy: str, k: int) -> list[Interaction]:
        """Return at most `k` interactions whose prompts to resample: lone scored ones, then recent ones; none twice in a round."""
        return await self._interactions.many([item.decode() for item in await self._link.run("prompts", policy=policy, k=k)])

    async def _lease(self, policy: str, step: int, **args: Any) -> Lease | None:
        rows = await self._link.run("lease", policy=policy, step=step, **args)
        if rows is None:
            return None
        leased = [_Row(*row) for row in rows]
        wanted = sorted({item for row in leased for item, _ in row.names})
        found = {item.id: item for item in await self._interactions.many(wanted)}
        if len(found) != len(wanted):
            raise StoreError(f"{policy}: an interaction of the leased examples is missing")
        job = await self._link.do("HGET", schema.lease(policy), "job")
        examples = sorted((row.example(found) for row in leased), key=lambda example: example.id)
        return Lease(policy, step, examples, job.decode() if job else "")


class _Row:
    """A leased example as the script returns it: the ids of its interactions, each with its turn, and the fields of its feedback."""

    def __init__(self, item: bytes, kind: bytes, names: bytes, signals: bytes | list[list[bytes]]) -> None:
        self.id = item.decode()
        self.kind = cast(ExampleKind, kind.decode())
        self.names = msgspec.json.decode(names, type=list[tuple[str, int | None]])
        self._signals = signals

    def example(self, found: dict[str, Interaction]) -> Example:
        """Return the example, with its interactions from `found`."""
        for item, turn in self.names:
            found[item].turn = turn  # also where the meta that holds it was deleted
        answers = [found[item] for item, _ in self.names]
        if not isinstance(self._signals, bytes):
            return Example(self.id, self.kind, answers, [_signal(*fields) for fields in self._signals])
        scores = [float(text) for text in msgspec.json.decode(self._signals, type=list[str])]
        signals = [Signal(self.id, choice, answers[0].metric, score) for choice, score in enumerate(scores)]
        return Example(self.id, self.kind, answers, signals, shadow=True)


def _signal(target: bytes, choice: bytes, metric: bytes, value: bytes, tenant: bytes, key_id: bytes, fb: bytes) -> Signal:
    given = msgspec.json.decode(value)
    return Signal(target.decode(), int(choice), metric.decode(), given, fb.decode(), tenant.decode(), key_id.decode())
