"""Whether an adapter on disk is what the registry committed, before any engine may see it."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, deserialize

from ratchet.adapters.disk import MANIFEST_BYTES, folder_of, manifest_of
from ratchet.adapters.manifest import CONFIG, FILES, WEIGHTS, Manifest, digest
from ratchet.errors import AdapterError
from ratchet.types import PolicyVersionRecord

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
LORA_A, LORA_B = ".lora_A.weight", ".lora_B.weight"
FULL_WEIGHTS = ("modules_to_save", "rank_pattern", "alpha_pattern", "trainable_token_indices")
"""Keys of PEFT's configuration under which an adapter would be more, or of another rank, than its manifest says."""


def verify(data: Path, record: PolicyVersionRecord, *, rank: int, base: str) -> Manifest:
    """The manifest of the version's adapter, after each of its bytes was checked.

    Checked: the place, no symlink on the way, the manifest's digest, exactly the two files and their sha256, the
    configuration, each tensor's pairing, shape against `rank`, and finite numbers; `base`. Raises AdapterError.
    """
    folder = folder_of(record.policy, record.version, record.digest)
    if record.path != folder.as_posix():
        raise AdapterError(f"{record.policy}@{record.version}: its folder is {folder}, not {record.path}")
    try:
        return _verified(data, folder, record, rank, base)
    except OSError as error:
        raise AdapterError(f"{folder}: cannot be read ({error.strerror})") from None
    except AdapterError as error:
        raise AdapterError(f"{folder}: {error}") from None


def _verified(data: Path, folder: Path, record: PolicyVersionRecord, rank: int, base: str) -> Manifest:
    for depth in range(1, len(folder.parts) + 1):
        _is(stat.S_ISDIR, data.joinpath(*folder.parts[:depth]))
    place = data / folder
    manifest = _manifest(manifest_of(place), record)
    for name, found, wanted in (
        ("policy", manifest.policy, record.policy),
        ("version", manifest.version, record.version),
        ("rank", manifest.rank, rank),
        ("base", manifest.base, base),
        ("files", set(manifest.files), FILES),
    ):
        if found != wanted:
            raise AdapterError(f"its {name} is {found!r}, not {wanted!r}")
    present = {entry.name for entry in place.iterdir()}
    if present != FILES:
        raise AdapterError(f"holds {sorted(present)}, not exactly {sorted(FILES)}")
    contents = {name: _content(place / name, manifest.files[name]) for name in sorted(FILES)}
    _check_config(contents[CONFIG], manifest)
    _check_weights(contents[WEIGHTS], rank)
    return manifest


def _is(kind: Any, path: Path) -> None:
    if not kind(path.lstat().st_mode):
        raise AdapterError(f"{path.name} is not a plain {'folder' if kind is stat.S_ISDIR else 'file'}")


def _manifest(path: Path, record: PolicyVersionRecord) -> Manifest:
    _is(stat.S_ISREG, path)
    if path.stat().st_size > MANIFEST_BYTES:
        raise AdapterError(f"the manifest is larger than {MANIFEST_BYTES} bytes")
    text = path.read_bytes()
    if digest(text) != record.digest:
        raise AdapterError("the manifest's digest is not the committed one")
    try:
        return msgspec.json.decode(text, type=Manifest)
    except msgspec.MsgspecError as error:
        raise AdapterError(f"the manifest is malformed: {error}") from None


def _content(path: Path, wanted: str) -> bytes:
    _is(stat.S_ISREG, path)
    content = path.read_bytes()
    if digest(content) != wanted:
        raise AdapterError(f"{path.name} has another sha256 than its manifest says")
    return content


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
