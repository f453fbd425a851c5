"""Write an adapter so that a power cut leaves all of it or nothing that counts."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path
from typing import Any

import msgspec

from ratchet import names
from ratchet.adapters.manifest import FILES, Manifest, digest
from ratchet.errors import AdapterError

ADAPTERS = "adapters"
MANIFEST_BYTES = 16 * 2**20
"""Bytes a manifest may have."""
_SHORT = 12
_UNFINISHED = ".tmp-"


def folder_of(policy: str, version: int, manifest_digest: str) -> Path:
    """The adapter's folder relative to the data directory; the manifest is beside it, with the suffix .json.

    Raises AdapterError if the parts are none of ours (so none can leave the data directory).
    """
    if not names.is_name(policy) or version < 1 or len(manifest_digest) != 64 or set(manifest_digest) - set("0123456789abcdef"):
        raise AdapterError(f"{policy!r}@{version} with digest {manifest_digest[:_SHORT]!r} names no adapter")
    return Path(ADAPTERS, policy, f"{version}-{manifest_digest[:_SHORT]}")


def manifest_of(folder: Path) -> Path:
    """Where the manifest of an adapter's folder is."""
    return folder.with_name(folder.name + ".json")


def write(data: Path, manifest_fields: dict[str, Any], files: dict[str, bytes]) -> tuple[Path, str]:
    """Writes an adapter under `data`; its absolute folder and its manifest's digest (sha256, hex).

    `manifest_fields` are Manifest's without `files`. All is on disk when it returns; the same bytes again change nothing.
    Raises AdapterError if the files are not exactly the two of an adapter or a field is wrong.
    """
    if set(files) != FILES:
        raise AdapterError(f"an adapter is exactly {sorted(FILES)}, not {sorted(files)}")
    hashes = {name: digest(content) for name, content in files.items()}
    try:
        manifest = msgspec.convert({**manifest_fields, "files": hashes}, Manifest)
    except msgspec.ValidationError as error:
        raise AdapterError(f"manifest: {error}") from None
    text = manifest.encoded()
    target = data / folder_of(manifest.policy, manifest.version, digest(text))
    _make(data, target.parent)
    _sweep(target.parent)
    unfinished = target.with_name(_UNFINISHED + secrets.token_hex(8))
    unfinished.mkdir(mode=0o755)
    for name, content in files.items():
        _write(unfinished / name, content)
    _sync(unfinished)
    _write(unfinished.with_suffix(".json"), text)
    unfinished.with_suffix(".json").rename(manifest_of(target))
    if target.exists():
        shutil.rmtree(target)  # left by a crash: nothing is committed to it yet, and its content may be anything
    unfinished.rename(target)
    _sync(target.parent)
    return target, digest(text)


def _make(data: Path, folder: Path) -> None:
    """Makes `folder` below `data`, each new directory entry on disk."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for place in reversed(missing):
        _sync(place.parent)
    if not folder.resolve().is_relative_to(data.resolve()):
        raise AdapterError(f"{folder} leads out of the data directory")


def _sweep(folder: Path) -> None:
    """Removes what an interrupted write left (a policy has one writer)."""
    for left in folder.glob(_UNFINISHED + "*"):
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)
        else:
            left.unlink()


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
