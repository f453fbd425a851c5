"""Checkpoints: adapter, optimiser and step as an artifact of the policy. safetensors and JSON only.

    checkpoints/POLICY/DIGEST/state.json             {step, rng, algorithm, base_digest, files: {name: sha256}}
    checkpoints/POLICY/DIGEST/adapter.safetensors    as `Policy.adapter_state`
    checkpoints/POLICY/DIGEST/optimiser.safetensors  as `AdamW.state`

DIGEST is the sha256 of state.json, which holds those of the other two. Writing a checkpoint commits nothing: the store's
transaction that names its digest does. `sweep` deletes the checkpoints that no commit names.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from learner.policy.model import Policy
from learner.policy.optim import AdamW
from ratchet.adapters import ArtifactStore
from ratchet.adapters.artifacts import DIGEST, Layout, Place, digest
from ratchet.durable import UNFINISHED
from ratchet.errors import AdapterError

CHECKPOINTS = "checkpoints"
STATE, ADAPTER, OPTIMISER = "state.json", "adapter.safetensors", "optimiser.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """What was saved. `rng` and `algorithm` are the JSON objects that the caller gave."""

    step: int
    rng: dict[str, Any]
    algorithm: dict[str, Any]
    adapter: dict[str, Tensor]
    optimiser: dict[str, Tensor]
    base_digest: str

    def restore(self, policy: Policy, optimiser: AdamW) -> None:
        """Set policy and optimiser to what was saved, bit for bit. AdapterError if that has another base or another shape."""
        if self.base_digest != policy.base_digest:
            raise AdapterError(f"the checkpoint was saved on another base ({self.base_digest[:12]}, not {policy.base_digest[:12]})")
        policy.set_adapter_state(self.adapter)
        try:
            optimiser.load_state(self.optimiser)
        except ValueError as error:
            raise AdapterError(f"the checkpoint does not fit: {error}") from error


def save(
    artifacts: ArtifactStore,
    name: str,
    policy: Policy,
    optimiser: AdamW,
    *,
    step: int,
    rng: dict[str, Any],
    algorithm: dict[str, Any] | None = None,
) -> str:
    """Write a checkpoint of the policy `name` durably and return its digest; the same state has the same digest.

    `algorithm` is the algorithm's own state, any JSON object. ValueError if it or `rng` is not JSON; AdapterError if the
    checkpoint cannot be written.
    """
    files = {
        ADAPTER: safetensors.torch.save(policy.adapter_state()),
        OPTIMISER: safetensors.torch.save(optimiser.state()),
    }
    hashes = {file: digest(content) for file, content in files.items()}
    state = {"step": step, "rng": rng, "algorithm": algorithm or {}, "base_digest": policy.base_digest, "files": hashes}
    index = json.dumps(state, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    return artifacts.put(layout(name), index, files)[0]


def load(artifacts: ArtifactStore, name: str, wanted: str) -> Checkpoint:
    """Read and verify the checkpoint of the policy `name` with digest `wanted`. AdapterError if it is missing or damaged."""
    artifact = artifacts.fetch(wanted, layout(name))
    state = json.loads(artifact.index)
    try:
        adapter, optimiser = (safetensors.torch.load(artifact.files[file]) for file in (ADAPTER, OPTIMISER))
        return Checkpoint(state["step"], state["rng"], state.get("algorithm", {}), adapter, optimiser, state["base_digest"])
    except (KeyError, safetensors.SafetensorError) as error:
        raise AdapterError(f"checkpoint {wanted[:12]} is not readable: {error}") from error


def sweep(artifacts: ArtifactStore, name: str, keep: Set[str]) -> list[str]:
    """Delete the checkpoints of the policy `name` that are not in `keep`, and unfinished ones; return the folders deleted.

    Only the learner that holds the data directory may call this. AdapterError if one cannot be deleted.
    """
    folder = artifacts.data / CHECKPOINTS / name
    if not folder.is_dir():
        return []
    names = [path.name for path in folder.iterdir()]
    unfinished = sorted(found for found in names if found.startswith(UNFINISHED))
    unwanted = sorted(found for found in names if DIGEST.fullmatch(found) and found not in keep)
    for found in unfinished:
        shutil.rmtree(folder / found)
    for found in unwanted:
        artifacts.delete(found, layout(name))
    return [*unfinished, *unwanted]


def layout(name: str) -> Layout:
    """Where checkpoints of the policy `name` lie."""

    def place(found: str) -> Place:
        folder = Path(CHECKPOINTS, name, found)
        return Place(folder, folder / STATE)

    return place
