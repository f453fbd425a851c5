"""What the learner learns from: ready groups, the lease of a step, prompts to resample."""

from __future__ import annotations

from typing import Literal

import msgspec

from ratchet.buffer import schema
from ratchet.buffer.interactions import Interactions
from ratchet.buffer.link import Link
from ratchet.errors import StoreError
from ratchet.types import Group, Interaction, Lease


class Experience:
    """The policies' streams of groups."""

    def __init__(self, link: Link, interactions: Interactions) -> None:
        self._link = link
        self._interactions = interactions

    async def add_shadow(self, interaction: Interaction, rewards: list[float]) -> str:
        """Adds a scored shadow group, ready at once; its id. `rewards` [n], one a choice. Idempotent by id."""
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

    async def ready(self, policy: str) -> int:
        """Groups ready to be leased (some may turn out stale or without spread)."""
        waiting, leased = await self._link.together(("XLEN", schema.ready(policy)), ("HGET", schema.lease(policy), "groups"), atomic=True)
        return int(waiting) - (len(msgspec.json.decode(leased)) if leased else 0)

    async def lease(self, policy: str, step: int, *, max_groups: int, oldest_version: int, min_groups: int = 1) -> Lease | None:
        """The groups `step` learns from, or None while fewer than `min_groups` can teach.

        The step that holds a lease gets the same one again, after a crash too. Groups answered by a version below
        `oldest_version` become `rejected: {stale}`, those whose rewards are all equal `rejected: {zero_spread}`. A new lease ends
        the request for a step (`registry.request_training`).
        Raises Conflict while another step holds the lease.
        """
        rows = await self._link.run("lease", policy=policy, step=step, max_groups=max_groups, min_groups=min_groups, oldest=oldest_version)
        if rows is None:
            return None
        ids = [row[0].decode() for row in rows]
        found = await self._interactions.many(ids)
        if len(found) != len(ids):
            raise StoreError(f"{policy}: an interaction of the leased groups is gone")
        return Lease(policy, step, [_group(row, item) for row, item in zip(rows, found, strict=True)])

    async def release(self, policy: str) -> None:
        """Gives the lease up: groups ready again, rewards pending. Raises Conflict once its step is committed."""
        await self._link.run("release", policy=policy)

    async def prompts(self, policy: str, k: int) -> list[Interaction]:
        """At most `k` interactions whose prompts to resample: lone-scored first, then recent; none twice in a round."""
        return await self._interactions.many([item.decode() for item in await self._link.run("prompts", policy=policy, k=k)])


def _group(row: list[bytes], interaction: Interaction) -> Group:
    kind: Literal["natural", "shadow"] = "shadow" if row[1] == b"shadow" else "natural"
    return Group(interaction.id, kind, interaction, [float(text) for text in msgspec.json.decode(row[2], type=list[str])])
