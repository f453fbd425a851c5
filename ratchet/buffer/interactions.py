"""Recorded answers: written once, found by id, listed by tenant in the order they came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from ratchet.buffer import schema
from ratchet.buffer.link import Call, Link
from ratchet.types import Interaction

Order = Literal["asc", "desc"]
CHUNK = 200


class Interactions:
    """The recorded interactions of all tenants."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def put(self, items: Sequence[Interaction]) -> None:
        """Writes `items` in one round trip; one already there stays as it is. Durable once it returns.

        Feedback parked for an item joins it. Raises StoreUnavailable: some may have been written, so put all again.
        """
        await self._link.run_all([_call(item) for item in items])

    async def get(self, item: str, tenant: str | None) -> Interaction | None:
        """The interaction, or None if there is none or it is not `tenant`'s (None: anybody's)."""
        owner, data = await self._link.together(("HGET", schema.meta(item), "tenant"), ("GET", schema.blob(item)))
        if data is None or owner is None or (tenant is not None and owner.decode() != tenant):
            return None
        return schema.unpack(data)

    async def many(self, ids: Sequence[str]) -> list[Interaction]:
        """Those of `ids` that are still there, in their order."""
        if not ids:
            return []
        found = await self._link.do("MGET", *(schema.blob(item) for item in ids))
        return [schema.unpack(data) for data in found if data is not None]

    async def page(
        self,
        tenant: str,
        *,
        limit: int,
        after: str | None = None,
        order: Order = "asc",
        model: str | None = None,
        metadata: dict[str, str] | None = None,
    ) -> tuple[list[Interaction], bool]:
        """At most `limit` of `tenant`'s interactions behind `after`, and whether more follow.

        The order is that of arrival at the store, never a clock's. `model`: a policy's name is any version of it. `metadata`: each
        pair must be there. An `after` that is not (or no longer) listed gives an empty page.
        """
        cursor = None
        if after is not None:
            cursor = await self._link.do("ZSCORE", schema.index(tenant), after)
            if cursor is None:
                return [], False
        found: list[Interaction] = []
        while len(found) <= limit:
            listed = await self._listed(tenant, cursor, order)
            if not listed:
                break
            cursor = listed[-1][1]
            wanted = await self._matching([item for item, _ in listed], model, metadata or {})
            for start in range(0, len(wanted), limit + 1):
                found += await self.many(wanted[start : start + limit + 1])
                if len(found) > limit:
                    break
        return found[:limit], len(found) > limit

    async def count(self) -> int:
        """Interactions in the store, shadow ones left out."""
        return int(await self._link.run("count"))

    async def untrainable(self) -> dict[str, int]:
        """How many were ever recorded that no policy gradient may learn from, by reason."""
        found = await self._link.do("HGETALL", schema.UNTRAINABLE)
        return {reason.decode(): int(n) for reason, n in found.items()}

    async def _listed(self, tenant: str, cursor: Any, order: Order) -> list[tuple[str, float]]:
        bound = b"(%.0f" % float(cursor) if cursor is not None else None
        span: tuple[Any, ...] = (bound or "-inf", "+inf", "BYSCORE") if order == "asc" else (bound or "+inf", "-inf", "BYSCORE", "REV")
        found = await self._link.do("ZRANGE", schema.index(tenant), *span, "LIMIT", 0, CHUNK, "WITHSCORES")
        flat = list(found)
        return [(flat[i].decode(), float(flat[i + 1])) for i in range(0, len(flat), 2)]

    async def _matching(self, ids: list[str], model: str | None, metadata: dict[str, str]) -> list[str]:
        if model is None and not metadata:
            return ids
        rows = await self._link.together(*(("HMGET", schema.meta(item), "model", "metadata") for item in ids))
        return [item for item, row in zip(ids, rows, strict=True) if _matches(row, model, metadata)]


def _matches(row: list[bytes | None], model: str | None, metadata: dict[str, str]) -> bool:
    answered = (row[0] or b"").decode()
    if model is not None and model not in (answered, answered.partition("@")[0]):
        return False
    own = msgspec.json.decode(row[1], type=dict[str, str]) if row[1] else {}
    return metadata.items() <= own.items()


def _call(item: Interaction) -> Call:
    if item.tenant == schema.SHADOW_TENANT:
        raise ValueError(f"{item.id}: tenant {schema.SHADOW_TENANT!r} is the learner's own; use experience.add_shadow")
    groups = item.status == "complete" and not item.untrainable and item.policy != item.base
    args = {
        "id": item.id,
        "tenant": item.tenant,
        "policy": item.policy,
        "version": item.version,
        "n": item.n,
        "trainable": "1" if groups else "0",
        "prompt": "1" if item.status == "complete" and item.prompt_ids and item.policy != item.base else "0",
        "status": item.status,
        "metric": item.metric,
        "model": item.model,
        "episode": item.episode_id or "",
        "metadata": msgspec.json.encode(item.metadata).decode() if item.metadata else "",
        "untrainable": item.untrainable,
    }
    return Call("put", args, schema.pack(item))
