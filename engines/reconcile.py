"""What adapters an engine must hold, and making it hold them. An engine that restarted has none."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path

from engines import EngineControl
from ratchet.adapters import ArtifactStore, engine_name, verify
from ratchet.buffer import Store
from ratchet.config import Config, PolicyConfig
from ratchet.errors import AdapterError, EngineRefused
from ratchet.names import parse_version
from ratchet.types import PolicyVersionRecord

log = logging.getLogger(__name__)


async def reconcile(engine: EngineControl, wanted: Mapping[str, Path], *, unload: bool) -> set[str]:
    """Loads what is missing or lies at another path, and returns the names the engine then lists.

    An adapter that the engine refuses is logged and left out. With `unload`, versions of any policy that are not wanted go;
    names of another form are somebody else's and stay. EngineUnavailable, EngineBroken.
    """
    for name, path in wanted.items():
        try:
            await engine.load(name, path)
        except EngineRefused as error:
            log.error("%s", error)
    listed = set(await engine.models())
    surplus = {name for name in listed - set(wanted) if parse_version(name) is not None} if unload else set()
    for name in sorted(surplus):
        await engine.unload(name)
    return listed - surplus


class Retained:
    """The adapters that the registry retains for the policies of one base: the live version and `max_staleness` before it."""

    def __init__(self, config: Config, data: Path, model: str, store: Store) -> None:
        self._policies = {name: policy for name, policy in config.policies.items() if policy.base == model}
        self._artifacts = ArtifactStore.of(config, data)
        self._store = store
        self._sound: dict[str, bool] = {}

    async def wanted(self) -> dict[str, Path]:
        """Engine-side name to folder, each verified once. An unsound one is logged and left out. StoreUnavailable."""
        found = {}
        for name, policy in self._policies.items():
            for record in await self._store.registry.retained(name, policy.schedule.max_staleness):
                if await self._is_sound(record, policy):
                    found[engine_name(name, record.version)] = self._artifacts.data / record.path
        return found

    def forget(self) -> None:
        """Verify anew: another process of the engine will read the files again."""
        self._sound.clear()

    async def _is_sound(self, record: PolicyVersionRecord, policy: PolicyConfig) -> bool:
        if record.digest not in self._sound:
            try:
                await asyncio.to_thread(verify, self._artifacts, record, rank=policy.lora.rank, base=policy.base)
                self._sound[record.digest] = True
            except AdapterError as error:
                log.error("%s@%d is not restored: %s", record.policy, record.version, error)
                self._sound[record.digest] = False
        return self._sound[record.digest]
