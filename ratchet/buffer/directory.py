"""Who may call, and which engines and gateways there are."""

from __future__ import annotations

from typing import cast

import msgspec

from ratchet.buffer import schema
from ratchet.buffer.link import Link
from ratchet.types import Desired, EngineRecord, Heartbeat, KeyRecord

SILENCE_SECONDS = 5.0


class Keys:
    """Keys at rest: only their sha256 is here."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def put(self, digest: str, record: KeyRecord) -> None:
        """Adds or replaces the key whose sha256 is `digest` (hex)."""
        await self._link.do("HSET", schema.KEYS, digest, msgspec.msgpack.encode(record))

    async def find(self, digest: str) -> KeyRecord | None:
        """The key whose sha256 is `digest` (hex), or None."""
        data = await self._link.do("HGET", schema.KEYS, digest)
        return msgspec.msgpack.decode(data, type=KeyRecord) if data is not None else None

    async def all(self) -> list[KeyRecord]:
        """All keys, the oldest first."""
        found = await self._link.do("HVALS", schema.KEYS)
        return sorted((msgspec.msgpack.decode(data, type=KeyRecord) for data in found), key=lambda key: (key.created, key.id))

    async def revoke(self, key_id: str) -> bool:
        """Removes the key of that public id; whether there was one."""
        found = await self._link.do("HGETALL", schema.KEYS)
        revoked = [digest for digest, data in found.items() if msgspec.msgpack.decode(data, type=KeyRecord).id == key_id]
        return bool(revoked and await self._link.do("HDEL", schema.KEYS, *revoked))


class Fleet:
    """Engines as their supervisors last said, and gateways that live."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def put(self, record: EngineRecord) -> None:
        """Adds the engine or replaces what was said of it."""
        await self._link.do("HSET", schema.ENGINES, record.name, msgspec.msgpack.encode(record))

    async def add(self, record: EngineRecord) -> None:
        """Adds an engine, whether or not one of its name was removed before. Raises Conflict if one of its name is there."""
        await self._link.run("engine", msgspec.msgpack.encode(record), name=record.name, how="add")

    async def amend(self, record: EngineRecord) -> None:
        """Replaces what was said of an engine, if it is still there."""
        await self._link.run("engine", msgspec.msgpack.encode(record), name=record.name, how="amend")

    async def want(self, name: str, desired: Desired) -> None:
        """The operator's word on an engine; it outlives the engine's restarts and ours. Raises Conflict if there is no such engine,
        or it is being removed."""
        await self._link.run("engine", name=name, how="want", desired=desired)

    async def forget(self, name: str, *, again: bool) -> None:
        """Ends the removal that `want` began; `again` false: `removed` names it from then on. Nothing if it was added anew meanwhile."""
        await self._link.run("engine", name=name, how="forget", again=again)

    async def removed(self) -> set[str]:
        """Engines that an operator removed, or is removing."""
        found = await self._link.do("HGETALL", schema.DESIRED)
        return {name.decode() for name, desired in found.items() if desired == b"remove"}

    async def remove(self, name: str) -> None:
        """Forgets what was said of the engine."""
        await self._link.do("HDEL", schema.ENGINES, name)

    async def engines(self) -> list[EngineRecord]:
        """All engines, by name."""
        found, desired = await self._link.together(("HGETALL", schema.ENGINES), ("HGETALL", schema.DESIRED), atomic=True)
        records = {name: msgspec.msgpack.decode(data, type=EngineRecord) for name, data in found.items()}
        for name, record in records.items():
            record.desired = cast(Desired, desired.get(name, b"serve").decode())
        return sorted(records.values(), key=lambda engine: engine.name)

    async def record_heartbeat(self, heartbeat: Heartbeat) -> None:
        """A gateway lives; it is forgotten after 5 s of silence."""
        await self._link.run(
            "heartbeat", msgspec.msgpack.encode(heartbeat), gateway=heartbeat.gateway, silent=round(SILENCE_SECONDS * 1000)
        )

    async def heartbeats(self) -> list[Heartbeat]:
        """The last beat of each gateway that lives, by name."""
        found = await self._link.run("heartbeat", silent=round(SILENCE_SECONDS * 1000))
        return sorted((msgspec.msgpack.decode(data, type=Heartbeat) for data in found), key=lambda heartbeat: heartbeat.gateway)
