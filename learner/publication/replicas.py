"""The replicas that serve a policy, as the store lists them."""

from __future__ import annotations

import asyncio
from pathlib import Path

from engines import EngineControl, connect
from ratchet.adapters import engine_name
from ratchet.buffer import Store
from ratchet.errors import EngineUnavailable
from ratchet.types import EngineRecord, PolicyVersionRecord


class Replicas:
    """Connections to the engines that are ready, one for each. A connection is opened on first use, and again when the engine's record
    changes, as it does on a restart."""

    def __init__(self, store: Store, data: Path) -> None:
        self._store = store
        self._data = data
        self._open: dict[str, EngineControl] = {}

    async def ready(self, base: str) -> list[EngineControl]:
        """Return the ready replicas of `base` that generate, sorted by name; may be empty. Raises StoreUnavailable."""
        ready = [r for r in await self._store.fleet.engines() if r.model == base and (r.state, r.desired) == ("ready", "serve")]
        return [await self._connected(record) for record in ready if not record.pools]

    async def some(self, base: str) -> list[EngineControl]:
        """Return the ready replicas of `base`. Raises EngineUnavailable if there is none."""
        found = await self.ready(base)
        if not found:
            raise EngineUnavailable(f"no engine of {base} is ready")
        return found

    def folder(self, version: PolicyVersionRecord) -> Path:
        """Return the folder of a version's adapter in the data directory. Engines that mount it elsewhere map the path (`adapters_at`)."""
        return self._data.resolve() / version.path

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.gather(*(engine.close() for engine in self._open.values()))
        self._open.clear()

    async def _connected(self, record: EngineRecord) -> EngineControl:
        held = self._open.get(record.name)
        if held is not None and held.record == record:
            return held
        if held is not None:
            await held.close()
        self._open[record.name] = connect(record)
        return self._open[record.name]


def live_name(engine: EngineControl, policy: str, version: int) -> str:
    """Return the replica's name for a version; for version 0, its name for the base."""
    return engine.record.served_name if version == 0 else engine_name(policy, version)
