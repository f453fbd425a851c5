"""Checkpoints: adapter, optimiser and step, in a folder named by its digest. safetensors and JSON only.

    DIR/DIGEST/state.json             {step, rng, base_digest, files: {name: sha256}}
    DIR/DIGEST/adapter.safetensors    as `Policy.adapter_state`
    DIR/DIGEST/optimiser.safetensors  as `AdamW.state`

DIGEST is the sha256 of state.json, which holds those of the other two: whoever knows the digest can verify it all.
A folder is not a commit; the store's transaction that names the digest is. `sweep` deletes the rest.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from learner import durable
from learner.model import Policy
from learner.optim import AdamW
from ratchet.errors import AdapterError

STATE, ADAPTER, OPTIMISER = "state.json", "adapter.safetensors", "optimiser.safetensors"
DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True)
class Checkpoint:
    """What was saved. `rng` is whatever JSON the caller gave."""

    step: int
    rng: dict[str, Any]
    adapter: dict[str, Tensor]
    optimiser: dict[str, Tensor]
    base_digest: str

    def restore(self, policy: Policy, optimiser: AdamW) -> None:
        """Puts policy and optimiser where they were, bit for bit. AdapterError: saved on another base, or of another shape."""
        if self.base_digest != policy.base_digest:
            raise AdapterError(f"the checkpoint was saved on another base ({self.base_digest[:12]}, not {policy.base_digest[:12]})")
        policy.set_adapter_state(self.adapter)
        try:
            optimiser.load_state(self.optimiser)
        except ValueError as error:
            raise AdapterError(f"the checkpoint does not fit: {error}") from error


def save(directory: Path, policy: Policy, optimiser: AdamW, step: int, rng: dict[str, Any]) -> str:
    """Writes a checkpoint durably and returns its digest. The same state gives the same digest; writing it twice is harmless."""
    files = {
        ADAPTER: safetensors.torch.save(policy.adapter_state()),
        OPTIMISER: safetensors.torch.save(optimiser.state()),
    }
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    state = {"step": step, "rng": rng, "base_digest": policy.base_digest, "files": sums}
    files[STATE] = json.dumps(state, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    digest = hashlib.sha256(files[STATE]).hexdigest()
    if not (directory / digest).is_dir():
        with durable.folder(directory / digest) as aside:
            for name, data in files.items():
                (aside / name).write_bytes(data)
    return digest


def load(directory: Path, digest: str) -> Checkpoint:
    """Reads and verifies a checkpoint. AdapterError: no such digest, or a byte that differs from it."""
    if DIGEST.fullmatch(digest) is None:
        raise AdapterError("a checkpoint's digest is 64 hex digits")
    folder = directory / digest
    state = json.loads(_verified(folder / STATE, digest))
    try:
        adapter, optimiser = (safetensors.torch.load(_verified(folder / name, state["files"][name])) for name in (ADAPTER, OPTIMISER))
    except safetensors.SafetensorError as error:
        raise AdapterError(f"checkpoint {digest[:12]} is not readable: {error}") from error
    return Checkpoint(state["step"], state["rng"], adapter, optimiser, state["base_digest"])


def sweep(directory: Path, keep: Set[str]) -> list[str]:
    """Deletes the checkpoints that no commit names, and what a crash left half written; returns the names deleted."""
    if not directory.is_dir():
        return []
    ours = [p for p in directory.iterdir() if DIGEST.fullmatch(p.name) or p.name.startswith(durable.ASIDE)]
    gone = sorted(p.name for p in ours if p.name not in keep)
    for name in gone:
        shutil.rmtree(directory / name)
    return gone


def _verified(path: Path, digest: str) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise AdapterError(f"checkpoint {path.parent.name[:12]} is missing {path.name}: {error.strerror}") from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise AdapterError(f"checkpoint {path.parent.name[:12]}: {path.name} is damaged")
    return data
