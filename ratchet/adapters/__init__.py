"""Adapters on disk: written once, under their digest; verified before any engine sees them."""

from ratchet.adapters.disk import MANIFEST_BYTES, folder_of, manifest_of, write
from ratchet.adapters.manifest import CONFIG, FILES, WEIGHTS, Manifest
from ratchet.adapters.verify import verify
from ratchet.names import PolicyVersion

__all__ = ["CONFIG", "FILES", "MANIFEST_BYTES", "WEIGHTS", "Manifest", "engine_name", "folder_of", "manifest_of", "verify", "write"]


def engine_name(policy: str, version: int) -> str:
    """The name an engine knows a version by: `support@7`. Each version has its own, and none is ever loaded twice."""
    return str(PolicyVersion(policy, version))
