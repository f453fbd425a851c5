"""API keys, the engines that are registered, and the gateways that are alive."""

from __future__ import annotations

from typing import cast

import msgspec

from ratchet.buffer import schema
from ratchet.buffer.link import Link
from ratchet.types import Desired, EngineRecord, Heartbeat, KeyRecord

SILENCE_SECONDS = 5.0
"""Seconds without a heartbeat after which a gateway counts as dead."""


class Keys:
    """The API keys. Only the sha256 of each is stored."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def put(self, digest: str, record: KeyRecord) -> None:
        """Add the key whose sha256 is `digest` (hex), or replace its record."""
        await self._link.do("HSET", schema.KEYS, digest, msgspec.msgpack.encode(record))

    async def find(self, digest: str) -> KeyRecord | None:
        """Return the record of the key whose sha256 is `digest` (hex), or None."""
        data = await self._link.do("HGET", schema.KEYS, digest)
        return msgspec.msgpack.decode(data, type=KeyRecord) if data is not None else None

    async def all(self) -> list[KeyRecord]:
        """Return all keys, the oldest first."""
        found = await self._link.do("HVALS", schema.KEYS)
        return sorted((msgspec.msgpack.decode(data, type=KeyRecord) for data in found), key=lambda key: (key.created, key.id))

    async def revoke(self, key_id: str) -> bool:
        """Remove the key with that public id. Return whether there was one."""
        found = await self._link.do("HGETALL", schema.KEYS)
        revoked = [digest for digest, data in found.items() if msgspec.msgpack.decode(data, type=KeyRecord).id == key_id]
        return bool(revoked and await self._link.do("HDEL", schema.KEYS, *revoked))


class Fleet:
    """The engines, as their supervisors last reported them, and the gateways that are alive."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def put(self, record: EngineRecord) -> None:
        """Add an engine, or replace its record."""
        await self._link.do("HSET", schema.ENGINES, record.name, msgspec.msgpack.encode(record))

    async def add(self, record: EngineRecord) -> None:
        """Add an engine, even if one of this name was removed before. Raises Conflict if one of this name exists."""
        await self._link.run("engine", msgspec.msgpack.encode(record), name=record.name, how="add")

    async def amend(self, record: EngineRecord) -> None:
        """Replace the record of an engine, if it still exists."""
        await self._link.run("engine", msgspec.msgpack.encode(record), name=record.name, how="amend")

    async def want(self, name: str, desired: Desired) -> None:
        """Store what the operator wants of an engine. It survives restarts of the engine and of Ratchet.

        Raises Conflict if there is no such engine, or if it is being removed.
        """
        await self._link.run("engine", name=name, how="want", desired=desired)

    async def forget(self, name: str, *, again: bool) -> None:
        """Finish the removal that `want` began. Does nothing if the engine was added again in the meantime.

        `again`: whether an engine of this name may be announced again; if not, `removed` lists it from then on.
        """
        await self._link.run("engine", name=name, how="forget", again=again)

    async def removed(self) -> set[str]:
        """Return the names of the engines that an operator removed, or is removing."""
        found = await self._link.do("HGETALL", schema.DESIRED)
        return {name.decode() for name, desired in found.items() if desired == b"remove"}

    async def remove(self, name: str) -> None:
        """Delete the record of an engine."""
        await self._link.do("HDEL", schema.ENGINES, name)

    async def engines(self) -> list[EngineRecord]:
        """Return all engines, sorted by name."""
        found, desired = await self._link.together(("HGETALL", schema.ENGINES), ("HGETALL", schema.DESIRED), atomic=True)
        records = {name: msgspec.msgpack.decode(data, type=EngineRecord) for name, data in found.items()}
        for name, record in records.items():
            record.desired = cast(Desired, desired.get(name, b"serve").decode())
        return sorted(records.values(), key=lambda engine: engine.name)

    async def record_heartbeat(self, heartbeat: Heartbeat) -> None:
        """Record that a gateway is alive. It counts as dead after SILENCE_SECONDS without another heartbeat."""
        await self._link.run(
            "heartbeat", msgspec.msgpack.encode(heartbeat), gateway=heartbeat.gateway, silent=round(SILENCE_SECONDS * 1000)
        )

    async def heartbeats(self) -> list[Heartbeat]:
        """Return the last heartbeat of each gateway that is alive, sorted by name."""
        found = await self._link.run("heartbeat", silent=round(SILENCE_SECONDS * 1000))
        return sorted((msgspec.msgpack.decode(data, type=Heartbeat) for data in found), key=lambda heartbeat: heartbeat.gateway)
