"""Policy versions in the registry with adapters of SmolLM2 on disk, as the learner commits them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ratchet import adapters
from ratchet.buffer import Store
from ratchet.types import PolicyVersionRecord
from tests.support.stores import candidate
from tests.support.vllm_server import BASE, write_adapter


async def commit(store: Store, data: Path, policy: str, version: int, *, rank: int = 8, shared: Path | None = None) -> PolicyVersionRecord:
    """Write a random adapter and commit it as a candidate, the policy's next version."""
    source = write_adapter(data / "made" / f"{policy}-{version}", version, rank=rank)
    files = {file.name: file.read_bytes() for file in source.iterdir()}
    lineage = {"policy": policy, "version": version, "parent": version - 1, "base": BASE, "base_digest": "0" * 64, "rank": rank}
    lineage |= {"alpha": 2.0 * rank, "seed": version, "step": version, "consumed": [], "interactions": [], "algorithm": {}, "created": 1.0}
    folder, digest = adapters.write(adapters.ArtifactStore(data, shared), lineage, files)
    await store.registry.ensure(policy, BASE)
    record = candidate(version, version, [], policy=policy, path=str(folder.relative_to(data.resolve())), digest=digest, parent=version - 1)
    await store.registry.commit_step(policy, version, record)
    return record


async def publish(store: Store, data: Path, policy: str, version: int, *, rank: int = 8, shared: Path | None = None) -> PolicyVersionRecord:
    """Commit a version as `commit` does, and make it live."""
    record = await commit(store, data, policy, version, rank=rank, shared=shared)
    await store.registry.publish(policy, version, expect_live=version - 1, verdict={"passed": True})
    return record


def corrupt(data: Path, record: PolicyVersionRecord) -> None:
    """Flip a bit in the middle of the adapter's weights."""
    weights = data / record.path / adapters.WEIGHTS
    content = np.frombuffer(weights.read_bytes(), np.uint8).copy()
    content[len(content) // 2] ^= 1
    weights.write_bytes(content.tobytes())
