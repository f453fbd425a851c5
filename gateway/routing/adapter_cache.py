"""The adapters on local disk, verified before an engine loads them."""

from __future__ import annotations

import asyncio
from pathlib import Path

from ratchet import adapters
from ratchet.config import Config
from ratchet.types import PolicyVersionRecord


class AdapterCache:
    """The adapters in the data directory, fetched from the artifact store if one is configured."""

    def __init__(self, config: Config, data: Path) -> None:
        self._config = config
        self._artifacts = adapters.ArtifactStore.of(config, data)

    def name(self, record: PolicyVersionRecord) -> str:
        """Return the engine-side name of a version's adapter."""
        return adapters.engine_name(record.policy, record.version)

    async def manifest(self, record: PolicyVersionRecord) -> adapters.Manifest:
        """Return the manifest, after checking every byte of the adapter against it. Raises AdapterError."""
        policy = self._config.policies[record.policy]
        return await asyncio.to_thread(adapters.verify, self._artifacts, record, rank=policy.lora.rank, base=policy.base)

    async def verified(self, record: PolicyVersionRecord) -> Path:
        """Return the adapter's folder, after checking it. Raises AdapterError."""
        await self.manifest(record)
        return self._artifacts.data / record.path
