"""API keys, engines and gateways."""

from __future__ import annotations

from typing import cast

import msgspec

from ratchet.buffer import schema
from ratchet.buffer.link import Link
from ratchet.types import Desired, EngineRecord, Heartbeat, KeyRecord

SILENT_SECONDS = 5.0
"""A gateway whose last heartbeat is older than this is forgotten."""


class Keys:
    """The API keys. Only their SHA-256 is stored."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def put(self, digest: str, record: KeyRecord) -> None:
        """Add or replace the key whose SHA-256 is `digest` (hex)."""
        await self._link.do("HSET", schema.KEYS, digest, msgspec.msgpack.encode(record))

    async def find(self, digest: str) -> KeyRecord | None:
        """Return the key whose SHA-256 is `digest` (hex), or None."""
        data = await self._link.do("HGET", schema.KEYS, digest)
        return msgspec.msgpack.decode(data, type=KeyRecord) if data is not None else None

    async def all(self) -> list[KeyRecord]:
        """Return all keys, oldest first."""
        found = await self._link.do("HVALS", schema.KEYS)
        return sorted((msgspec.msgpack.decode(data, type=KeyRecord) for data in found), key=lambda key: (key.created, key.id))

    async def revoke(self, key_id: str) -> bool:
        """Remove the key with this public id. Return whether there was one."""
        found = await self._link.do("HGETALL", schema.KEYS)
        digests = [digest for digest, data in found.items() if msgspec.msgpack.decode(data, type=KeyRecord).id == key_id]
        return bool(digests and await self._link.do("HDEL", schema.KEYS, *digests))


class Fleet:
    """The engines, as their supervisors last described them, and the gateways that are alive."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def put(self, record: EngineRecord) -> None:
        """Add the engine or replace its record."""
        await self._link.do("HSET", schema.ENGINES, record.name, msgspec.msgpack.encode(record))

    async def add(self, record: EngineRecord) -> None:
        """Add an engine, even if one with its name was removed before. Raises Conflict if there is one with its name."""
        await self._link.run("engine", msgspec.msgpack.encode(record), name=record.name, how="add")

    async def amend(self, record: EngineRecord) -> None:
        """Replace the record of an engine, if it still exists."""
        await self._link.run("engine", msgspec.msgpack.encode(record), name=record.name, how="amend")

    async def want(self, name: str, desired: Desired) -> None:
        """Record what an operator wants of an engine. It survives restarts of the engine and of Ratchet.

        Raises Conflict if there is no such engine, or it is being removed.
        """
        await self._link.run("engine", name=name, how="want", desired=desired)

    async def forget(self, name: str, *, again: bool) -> None:
        """End the removal that `want` began. Unless `again`, `removed` lists the engine from then on.

        Nothing changes if the engine was added again meanwhile.
        """
        await self._link.run("engine", name=name, how="forget", again=again)

    async def removed(self) -> set[str]:
        """Return the names of engines that an operator removed, or is removing."""
        found = await self._link.do("HGETALL", schema.DESIRED)
        return {name.decode() for name, desired in found.items() if desired == b"remove"}

    async def remove(self, name: str) -> None:
        """Delete the record of the engine."""
        await self._link.do("HDEL", schema.ENGINES, name)

    async def engines(self) -> list[EngineRecord]:
        """Return all engines, sorted by name."""
        found, desired = await self._link.together(("HGETALL", schema.ENGINES), ("HGETALL", schema.DESIRED), atomic=True)
        records = {name: msgspec.msgpack.decode(data, type=EngineRecord) for name, data in found.items()}
        for name, record in records.items():
            record.desired = cast(Desired, desired.get(name, b"serve").decode())
        return sorted(records.values(), key=lambda engine: engine.name)

    async def heartbeat(self, record: Heartbeat) -> None:
        """Record that a gateway is alive. It is forgotten after SILENT_SECONDS without another heartbeat."""
        silent = round(SILENT_SECONDS * 1000)
        await self._link.run("heartbeat", msgspec.msgpack.encode(record), gateway=record.gateway, silent=silent)

    async def heartbeats(self) -> list[Heartbeat]:
        """Return the last heartbeat of each gateway that is alive, sorted by name."""
        found = await self._link.run("heartbeat", silent=round(SILENT_SECONDS * 1000))
        return sorted((msgspec.msgpack.decode(data, type=Heartbeat) for data in found), key=lambda record: record.gateway)
