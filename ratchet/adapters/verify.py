"""Check that an adapter is what the registry committed, before any engine loads it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, deserialize

from ratchet.adapters.artifacts import Artifact, ArtifactStore
from ratchet.adapters.disk import folder_of, layout
from ratchet.adapters.manifest import CONFIG, FILES, WEIGHTS, Manifest
from ratchet.errors import AdapterError
from ratchet.types import PolicyVersionRecord

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
LORA_A, LORA_B = ".lora_A.weight", ".lora_B.weight"
FULL_WEIGHTS = ("modules_to_save", "rank_pattern", "alpha_pattern", "trainable_token_indices")
"""Keys of PEFT's configuration under which an adapter would be more, or of another rank, than its manifest says."""


def verify(artifacts: ArtifactStore, record: PolicyVersionRecord, *, rank: int, base: str) -> Manifest:
    """Return the manifest of a version's adapter after checking all of it; an adapter that is not here is fetched first.

    Checked are the place, every byte against the digest, the configuration, and the weights: LoRA matrices in pairs, of
    `rank`, with finite numbers. AdapterError says what is wrong.
    """
    folder = folder_of(record.policy, record.version, record.digest)
    if record.path != folder.as_posix():
        raise AdapterError(f"{record.policy}@{record.version}: its folder is {folder}, not {record.path}")
    artifact = artifacts.fetch(record.digest, layout(record.policy, record.version))
    try:
        return _checked(artifact, record, rank, base)
    except AdapterError as error:
        raise AdapterError(f"{folder}: {error}") from None


def _checked(artifact: Artifact, record: PolicyVersionRecord, rank: int, base: str) -> Manifest:
    try:
        manifest = msgspec.json.decode(artifact.index, type=Manifest)
    except msgspec.MsgspecError as error:
        raise AdapterError(f"the manifest is malformed: {error}") from None
    for name, found, wanted in (
        ("policy", manifest.policy, record.policy),
        ("version", manifest.version, record.version),
        ("rank", manifest.rank, rank),
        ("base", manifest.base, base),
        ("files", set(manifest.files), FILES),
    ):
        if found != wanted:
            raise AdapterError(f"its {name} is {found!r}, not {wanted!r}")
    _check_config(artifact.files[CONFIG], manifest)
    _check_weights(artifact.files[WEIGHTS], rank)
    return manifest


def _check_config(content: bytes, manifest: Manifest) -> None:
    try:
        config = json.loads(content)
    except ValueError:
        raise AdapterError(f"{CONFIG} is not JSON") from None
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise AdapterError(f"{CONFIG} describes no LoRA adapter")
    if config.get("r") != manifest.rank or config.get("lora_alpha") != manifest.alpha:
        raise AdapterError(f"{CONFIG} has rank {config.get('r')!r} and alpha {config.get('lora_alpha')!r}, not its manifest's")
    extra = [key for key in FULL_WEIGHTS if config.get(key)]
    if extra or config.get("bias", "none") != "none":
        raise AdapterError(f"{CONFIG} sets {', '.join(extra) or 'bias'}, which is not served")


def _check_weights(content: bytes, rank: int) -> None:
    try:
        tensors = dict(deserialize(content))  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise AdapterError(f"{WEIGHTS} is no safetensors file: {error}") from None
    if not tensors:
        raise AdapterError(f"{WEIGHTS} holds no tensor")
    for name, tensor in tensors.items():
        _check_shape(name, tensor["shape"], tensors, rank)
        if not np.isfinite(_numbers(name, tensor)).all():
            raise AdapterError(f"{name} holds a number that is not finite")


def _check_shape(name: str, shape: list[int], tensors: dict[str, Any], rank: int) -> None:
    """A is [rank, in], B [out, rank]; each needs the other."""
    for own, other, axis in ((LORA_A, LORA_B, 0), (LORA_B, LORA_A, 1)):
        if name.endswith(own):
            if name.removesuffix(own) + other not in tensors:
                raise AdapterError(f"{name} has no partner")
            if len(shape) != 2 or shape[axis] != rank:
                raise AdapterError(f"{name} has shape {shape}, which is not of rank {rank}")
            return
    raise AdapterError(f"{name} is no LoRA matrix")


def _numbers(name: str, tensor: dict[str, Any]) -> NDArray[np.floating[Any]]:
    data = bytes(tensor["data"])
    if tensor["dtype"] == "BF16":  # the upper half of a float32
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
    if tensor["dtype"] not in DTYPES:
        raise AdapterError(f"{name} has dtype {tensor['dtype']}, not one of {sorted([*DTYPES, 'BF16'])}")
    return np.frombuffer(data, DTYPES[tensor["dtype"]])
