"""The adapters that an engine has to hold, and how it comes to hold them. A restarted engine has none."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from engines import EngineControl
from ratchet.adapters import ArtifactStore, engine_name, verify
from ratchet.buffer import Store
from ratchet.clock import monotonic
from ratchet.config import Config, PolicyConfig
from ratchet.errors import AdapterError, EngineRefused
from ratchet.names import parse_version
from ratchet.types import PolicyVersionRecord

RETRY_SECONDS = 30.0
"""Seconds until an adapter that was damaged or missing is looked for again: the shared folder may be back by then."""

log = logging.getLogger(__name__)


async def reconcile(engine: EngineControl, wanted: Mapping[str, Path], *, unload: bool) -> set[str]:
    """Load the adapters that are missing or come from another path, and return the names that the engine then lists.

    An adapter that the engine refuses is logged and left out. With `unload`, versions of any policy that are not wanted are
    unloaded; names of another form are somebody else's and stay. An engine that takes adapters only at its start is left as it
    is: only its supervisor can restart it. EngineUnavailable, EngineBroken; EngineUnsupported: it takes no adapters at all.
    """
    if engine.brings == "restart":
        return set(await engine.models())
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


class Wanted:
    """The adapters that the registry wants on the engines of one base."""

    def __init__(self, config: Config, data: Path, model: str, store: Store) -> None:
        self._policies = {name: policy for name, policy in config.policies.items() if policy.base == model}
        self._artifacts = ArtifactStore.of(config, data)
        self._store = store
        self._sound: set[str] = set()
        self._unsound: dict[str, float] = {}
        """When an adapter that is damaged or not here was last looked for."""

    async def retained(self) -> dict[str, Path]:
        """The folders, by engine-side name, of each policy's live version and of `max_staleness` versions before it.

        Each is verified once. An unsound one is logged and left out, and looked for again after RETRY_SECONDS. StoreUnavailable.
        """
        found: dict[str, Path] = {}
        for name, policy in self._policies.items():
            found |= await self._sound_ones(policy, await self._store.registry.retained(name, policy.schedule.max_staleness))
        return found

    async def candidates(self) -> dict[str, Path]:
        """The same of the versions that wait for their gate, which proves them on the engines."""
        found: dict[str, Path] = {}
        for name, policy in self._policies.items():
            versions = await self._store.registry.versions(name)
            found |= await self._sound_ones(policy, [v for v in versions if v.state == "candidate" and v.path])
        return found

    def forget(self) -> None:
        """Verify them again, since another process of the engine will read the files again."""
        self._sound.clear()
        self._unsound.clear()

    async def _sound_ones(self, policy: PolicyConfig, records: Iterable[PolicyVersionRecord]) -> dict[str, Path]:
        return {engine_name(r.policy, r.version): self._artifacts.data / r.path for r in records if await self._is_sound(r, policy)}

    async def _is_sound(self, record: PolicyVersionRecord, policy: PolicyConfig) -> bool:
        if record.digest in self._sound:
            return True
        if monotonic() < self._unsound.get(record.digest, -math.inf) + RETRY_SECONDS:
            return False
        try:
            await asyncio.to_thread(verify, self._artifacts, record, rank=policy.lora.rank, base=policy.base)
        except AdapterError as error:
            log.error("%s@%d is not restored: %s", record.policy, record.version, error)
            self._unsound[record.digest] = monotonic()
            return False
        self._sound.add(record.digest)
        return True
