"""Adapters on this machine's disk, verified before an engine is told of them."""

from __future__ import annotations

import asyncio
from pathlib import Path

from ratchet import adapters
from ratchet.config import Config
from ratchet.types import PolicyVersionRecord


class AdapterCache:
    """The data directory's adapters."""

    def __init__(self, config: Config, data: Path) -> None:
        self._config = config
        self._artifacts = adapters.ArtifactStore.of(config, data)

    def name(self, record: PolicyVersionRecord) -> str:
        """The engine-side name."""
        return adapters.engine_name(record.policy, record.version)

    async def manifest(self, record: PolicyVersionRecord) -> adapters.Manifest:
        """The manifest, every byte of the adapter checked against it. AdapterError."""
        policy = self._config.policies[record.policy]
        return await asyncio.to_thread(adapters.verify, self._artifacts, record, rank=policy.lora.rank, base=policy.base)

    async def verified(self, record: PolicyVersionRecord) -> Path:
        """The adapter's folder, after it was checked. AdapterError."""
        await self.manifest(record)
        return self._artifacts.data / record.path
