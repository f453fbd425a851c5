"""A small adapter as PEFT would save it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from ratchet.adapters import CONFIG, WEIGHTS, ArtifactStore, write
from ratchet.types import PolicyVersionRecord

RANK, ALPHA, BASE, POLICY = 4, 8.0, "smollm2", "support"
LAYERS = ("q_proj", "v_proj")


def weights(rank: int = RANK, **replaced: Any) -> bytes:
    """LoRA matrices A [rank, 6] and B [5, rank] of two layers, some replaced by name."""
    rng = np.random.default_rng(0)
    tensors = {}
    for layer in LAYERS:
        prefix = f"base_model.model.layers.0.self_attn.{layer}"
        tensors[f"{prefix}.lora_A.weight"] = rng.standard_normal((rank, 6)).astype(np.float32)
        tensors[f"{prefix}.lora_B.weight"] = rng.standard_normal((5, rank)).astype(np.float32)
    return save({name: value for name, value in (tensors | replaced).items() if value is not None})


def configuration(**fields: Any) -> bytes:
    """adapter_config.json."""
    return json.dumps(
        {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "bias": "none", "target_modules": list(LAYERS)} | fields
    ).encode()


def lineage(**fields: Any) -> dict[str, Any]:
    """A manifest's fields without `files`."""
    base: dict[str, Any] = {"policy": POLICY, "version": 7, "parent": 6, "base": BASE, "base_digest": "0" * 64, "rank": RANK}
    rest: dict[str, Any] = {"alpha": ALPHA, "seed": 0, "step": 9, "consumed": ["g1"], "interactions": ["i1"], "created": 1.5}
    return base | rest | {"algorithm": {"type": "grpo", "beta": 0.1}} | fields


def written(
    data: Path, content: dict[str, bytes] | None = None, *, shared: Path | None = None, **fields: Any
) -> tuple[Path, PolicyVersionRecord]:
    """A written adapter's folder and the record a commit would keep of it."""
    folder, digest = write(ArtifactStore(data, shared), lineage(**fields), content or {CONFIG: configuration(), WEIGHTS: weights()})
    version = int(fields.get("version", 7))
    path = folder.relative_to(data.resolve()).as_posix()
    return folder, PolicyVersionRecord(POLICY, version, "candidate", 1.5, path=path, digest=digest)
