"""Recorded answers: written once, found by id, listed by tenant in order of arrival, deleted by their owner."""

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
"""Most bytes of unpacked interactions in a page, unless it has only one. Packed, they may be a thousand times smaller."""
LOOKED_AT = 10_000
"""Most interactions that the filter of one page checks."""


class Page(NamedTuple):
    """A part of a list, whether more may follow, and the id to continue `after`."""

    items: list[Interaction]
    more: bool
    last: str | None


class _Wanted(NamedTuple):
    """The filter of a list."""

    route: str | None
    model: str | None
    metadata: dict[str, str]

    def met_by(self, route: bytes | None, model: bytes | None, metadata: bytes | None) -> bool:
        """Return whether an interaction with this metadata passes."""
        answered = (model or b"").decode()
        if self.route is not None and (route or b"").decode() != self.route:
            return False
        if self.model is not None and self.model not in (answered, answered.partition("@")[0]):
            return False
        own = msgspec.json.decode(metadata, type=dict[str, str]) if metadata else {}
        return self.metadata.items() <= own.items()


def pack(item: Interaction) -> bytes:
    """Return the bytes in which the store keeps `item`."""
    return schema.pack(item)


def packed(data: bytes) -> Call:
    """Prepare what `pack` returned for `put_packed`. Raises ValueError if it is no interaction, or one that may not be put."""
    return _call(schema.unpack(data), data)


class Interactions:
    """The recorded interactions of all tenants."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def put(self, items: Sequence[Interaction]) -> None:
        """Write `items` durably, in one round trip. One that exists already, or was deleted, stays as it is.

        Feedback that was parked for an item joins it. Raises StoreUnavailable: some may have been written, so put all again.
        """
        await self._link.run_all([_call(item, schema.pack(item)) for item in items])

    async def put_packed(self, items: Sequence[Call]) -> None:
        """Do what `put` does, for items that `packed` prepared."""
        await self._link.run_all(items)

    async def writable(self) -> None:
        """Return if the store accepts writes now. Raises StoreUnavailable."""
        await self._link.run("writable")

    async def get(self, item: str, tenant: str | None) -> Interaction | None:
        """Return the interaction, or None if there is none or it is not `tenant`'s (None: any tenant's)."""
        meta, data = await self._link.together(("HMGET", schema.meta(item), "tenant", "turn"), ("GET", schema.blob(item)))
        owner, turn = meta
        if data is None or owner is None or (tenant is not None and owner.decode() != tenant):
            return None
        return _at(schema.unpack(data), turn)

    async def update(self, item: str, tenant: str, *, route: str, metadata: dict[str, str]) -> Interaction | None:
        """Replace an interaction's metadata. Return the interaction, or None if `tenant` has none of that id recorded by `route`.

        Its episode stays what it was.
        """
        found = await self.get(item, tenant)
        if found is None:
            return None
        found.metadata = metadata
        if "metadata" in found.request:
            found.request["metadata"] = metadata
        done = await self._link.run("update", schema.pack(found), id=item, tenant=tenant, route=route, metadata=_text(metadata))
        return found if done else None

    async def delete(self, item: str, tenant: str, *, route: str) -> bool:
        """Delete an interaction. Return whether `tenant` had one of that id recorded by `route`.

        Its pending rewards become `rejected: {deleted}` and later feedback is refused. A leased one is removed from every list at
        once and from the store when its lease ends; its leased rewards end as the lease does.
        """
        return bool(await self._link.run("delete", id=item, tenant=tenant, route=route))

    async def many(self, ids: Sequence[str]) -> list[Interaction]:
        """Return those of `ids` that still exist, in this order."""
        if not ids:
            return []
        found = await self._link.do("MGET", *(schema.blob(item) for item in ids))
        items = [schema.unpack(data) for data in found if data is not None]
        turns = [item for item in items if item.episode_id is not None]
        if turns:
            rows = await self._link.together(*(("HGET", schema.meta(item.id), "turn") for item in turns))
            for item, turn in zip(turns, rows, strict=True):
                _at(item, turn)
        return items

    async def scan(
        self,
        tenant: str,
        *,
        limit: int,
        after: str | None = None,
        order: Order = "asc",
        route: str | None = None,
        model: str | None = None,
        metadata: dict[str, str] | None = None,
    ) -> Page:
        """Return at most `limit` of `tenant`'s interactions after the id `after`, in order of arrival at the store.

        A page that reaches PAGE_BYTES or LOOKED_AT ends early, and says that more may follow. `route` None means any; a policy's
        name as `model` means any version of it; `metadata` are pairs that must all match. An `after` that is unknown or expired
        gives an empty page; a deleted one does not.
        """
        cursor = None if after is None else await self._cursor(tenant, after)
        if after is not None and cursor is None:
            return Page([], False, None)
        wanted = _Wanted(route, model, metadata or {})
        chosen: list[str] = []
        looked, room = 0, PAGE_BYTES
        while looked < LOOKED_AT:
            listed = await self._listed(tenant, cursor, order)
            if not listed:
                return Page(await self.many(chosen), False, None)
            after, cursor = listed[-1]
            looked += len(listed)
            matching = await self._matching([item for item, _ in listed], wanted)
            for item, size in await self._sizes(matching):
                if len(chosen) == limit or (chosen and size > room):
                    return Page(await self.many(chosen), True, chosen[-1])
                chosen.append(item)
                room -= size
        return Page(await self.many(chosen), True, after)

    async def count(self) -> int:
        """Return the number of interactions, without shadow groups."""
        return int(await self._link.run("count"))

    async def untrainable(self) -> dict[str, int]:
        """Return how many interactions were recorded that no policy gradient may learn from, by reason."""
        found = await self._link.do("HGETALL", schema.UNTRAINABLE)
        return {reason.decode(): int(n) for reason, n in found.items()}

    async def _cursor(self, tenant: str, item: str) -> float | None:
        """Return the position that the interaction has, or had until its deletion, in the tenant's list."""
        score, deleted = await self._link.together(("ZSCORE", schema.index(tenant), item), ("GET", schema.tombstone(item)))
        if deleted is None:
            return None if score is None else float(score)
        seq, _, owner = deleted.decode().partition(":")
        return float(seq) if owner == tenant else None

    async def _listed(self, tenant: str, cursor: float | None, order: Order) -> list[tuple[str, float]]:
        bound = b"(%.0f" % cursor if cursor is not None else None
        span: tuple[Any, ...] = (bound or "-inf", "+inf", "BYSCORE") if order == "asc" else (bound or "+inf", "-inf", "BYSCORE", "REV")
        found = await self._link.do("ZRANGE", schema.index(tenant), *span, "LIMIT", 0, CHUNK, "WITHSCORES")
        flat = list(found)
        return [(flat[i].decode(), float(flat[i + 1])) for i in range(0, len(flat), 2)]

    async def _sizes(self, ids: list[str]) -> list[tuple[str, int]]:
        """Return those of `ids` that still exist, each with its unpacked size in bytes."""
        heads = await self._link.together(*(("GETRANGE", schema.blob(item), 0, schema.HEAD_BYTES - 1) for item in ids))
        return [(item, schema.unpacked_size(head)) for item, head in zip(ids, heads, strict=True) if head]

    async def _matching(self, ids: list[str], wanted: _Wanted) -> list[str]:
        if wanted == (None, None, {}):
            return ids
        rows = await self._link.together(*(("HMGET", schema.meta(item), "route", "model", "metadata") for item in ids))
        return [item for item, row in zip(ids, rows, strict=True) if wanted.met_by(*row)]


def _at(item: Interaction, turn: bytes | None) -> Interaction:
    """Return `item` with the index that it has among the turns of its episode."""
    item.turn = None if turn is None else int(turn)
    return item


def _text(metadata: dict[str, str]) -> str:
    return msgspec.json.encode(metadata).decode() if metadata else ""


def _call(item: Interaction, blob: bytes) -> Call:
    if item.tenant == schema.SHADOW_TENANT:
        raise ValueError(f"{item.id}: tenant {schema.SHADOW_TENANT!r} is the learner's own; use experience.add_shadow")
    own, complete = item.policy != item.base, item.status == "complete"
    args = {
        "id": item.id,
        "tenant": item.tenant,
        "route": item.route,
        "policy": item.policy,
        "base": None if own else "1",
        "version": item.version,
        "n": item.n,
        "trainable": "no" if not complete else "text" if item.untrainable else "exact",
        "prompt": "1" if complete and item.prompt_ids and own else "0",
        "status": item.status,
        "metric": item.metric,
        "model": item.model or None,
        "episode": item.episode_id or None,
        "metadata": _text(item.metadata) or None,
        "untrainable": item.untrainable or None,
    }
    return Call("put", args, blob)
