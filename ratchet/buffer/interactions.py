"""Recorded answers: written once, found by id, listed by tenant in the order they came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from ratchet.buffer import schema
from ratchet.buffer.link import Call, Link
from ratchet.types import Interaction

Order = Literal["asc", "desc"]
CHUNK = 200
PAGE_BYTES = 8 * 2**20
"""Bytes of unpacked interactions in a page; a larger one comes alone. Packed ones may be a thousand times smaller."""
LOOKED_AT = 10_000
"""Interactions that one page's filter goes through."""


class Page(NamedTuple):
    """A part of a list: what is in it, whether more may follow, and the id to go on `after` if so."""

    items: list[Interaction]
    more: bool
    last: str | None


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
        """The items of `scan`, and whether more may follow."""
        found = await self.scan(tenant, limit=limit, after=after, order=order, model=model, metadata=metadata)
        return found.items, found.more

    async def scan(
        self,
        tenant: str,
        *,
        limit: int,
        after: str | None = None,
        order: Order = "asc",
        model: str | None = None,
        metadata: dict[str, str] | None = None,
    ) -> Page:
        """At most `limit` of `tenant`'s interactions behind `after`; fewer, and more to follow, past PAGE_BYTES or LOOKED_AT.

        The order is that of arrival at the store, never a clock's. `model`: a policy's name is any version of it. `metadata`: each
        pair must be there. An `after` that is not (or no longer) listed gives an empty page.
        """
        cursor = None
        if after is not None:
            cursor = await self._link.do("ZSCORE", schema.index(tenant), after)
            if cursor is None:
                return Page([], False, None)
        chosen: list[str] = []
        looked, room = 0, PAGE_BYTES
        while looked < LOOKED_AT:
            listed = await self._listed(tenant, cursor, order)
            if not listed:
                return Page(await self.many(chosen), False, None)
            after, cursor = listed[-1]
            looked += len(listed)
            wanted = await self._matching([item for item, _ in listed], model, metadata or {})
            for item, size in await self._sizes(wanted):
                if len(chosen) == limit or (chosen and size > room):
                    return Page(await self.many(chosen), True, chosen[-1])
                chosen.append(item)
                room -= size
        return Page(await self.many(chosen), True, after)

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

    async def _sizes(self, ids: list[str]) -> list[tuple[str, int]]:
        """Those of `ids` that are still there, each with its unpacked size in bytes."""
        heads = await self._link.together(*(("GETRANGE", schema.blob(item), 0, schema.HEAD_BYTES - 1) for item in ids))
        return [(item, schema.unpacked_size(head)) for item, head in zip(ids, heads, strict=True) if head]

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
