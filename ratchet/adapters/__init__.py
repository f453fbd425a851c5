"""Adapters: written once, under their digest; verified before any engine loads them."""

from ratchet.adapters.artifacts import ArtifactStore
from ratchet.adapters.disk import folder_of, manifest_of, write
from ratchet.adapters.manifest import CONFIG, FILES, WEIGHTS, Manifest
from ratchet.adapters.verify import verify
from ratchet.names import PolicyVersion

__all__ = ["CONFIG", "FILES", "WEIGHTS", "ArtifactStore", "Manifest", "engine_name", "folder_of", "manifest_of", "verify", "write"]


def engine_name(policy: str, version: int) -> str:
    """Return the name an engine knows a version by, such as `support@7`. Each version has its own; none is loaded twice."""
    return str(PolicyVersion(policy, version))
