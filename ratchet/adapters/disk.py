"""Adapters as artifacts: `adapters/POLICY/VERSION-DIGEST12/` with the two files, and the manifest beside it, as `.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from ratchet import names
from ratchet.adapters.artifacts import ArtifactStore, Layout, Place, checked, digest
from ratchet.adapters.manifest import FILES, Manifest
from ratchet.errors import AdapterError

ADAPTERS = "adapters"
DIGITS = 12
"""Hex digits of the digest in a folder's name."""


def folder_of(policy: str, version: int, manifest_digest: str) -> Path:
    """Return an adapter's folder, relative to the data directory.

    AdapterError if the parts have not the form of ours, so that no folder lies outside the data directory.
    """
    if not names.is_name(policy) or version < 1:
        raise AdapterError(f"{policy!r}@{version} names no adapter")
    return Path(ADAPTERS, policy, f"{version}-{checked(manifest_digest)[:DIGITS]}")


def manifest_of(folder: Path) -> Path:
    """Return the path of the manifest that belongs to an adapter's folder."""
    return folder.with_name(folder.name + ".json")


def layout(policy: str, version: int) -> Layout:
    """Return where the adapter of a policy's version lies. AdapterError if the name or the version is malformed."""

    def place(manifest_digest: str) -> Place:
        folder = folder_of(policy, version, manifest_digest)
        return Place(folder, manifest_of(folder))

    return place


def write(artifacts: ArtifactStore, manifest_fields: dict[str, Any], files: dict[str, bytes]) -> tuple[Path, str]:
    """Write an adapter durably; return its absolute folder and its manifest's digest.

    `manifest_fields` are Manifest's without `files`. The same bytes again change nothing. AdapterError if the files are not
    exactly the two of an adapter, a field is wrong, or it cannot be written.
    """
    if set(files) != FILES:
        raise AdapterError(f"an adapter is exactly {sorted(FILES)}, not {sorted(files)}")
    hashes = {name: digest(content) for name, content in files.items()}
    try:
        manifest = msgspec.convert({**manifest_fields, "files": hashes}, Manifest)
    except msgspec.ValidationError as error:
        raise AdapterError(f"manifest: {error}") from None
    found, folder = artifacts.put(layout(manifest.policy, manifest.version), manifest.encoded(), files)
    return folder, found
