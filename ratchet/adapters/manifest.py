"""What an adapter is and where it came from."""

from __future__ import annotations

from typing import Any

import msgspec

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
FILES = frozenset({CONFIG, WEIGHTS})
"""Exactly these two: an engine's loader falls back to a pickle when it finds no safetensors file."""


class Manifest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One version's manifest, kept beside its folder; its sha256 is the version's digest.

    `rank` and `alpha` are LoRA's; `base` a key of `models` and `base_digest` says which weights that was. `files` maps each
    file to its sha256 (hex). `consumed` are the ids of the groups it learned from, `interactions` those of the answers.
    """

    policy: str
    version: int
    parent: int | None
    base: str
    base_digest: str
    rank: int
    alpha: float
    seed: int
    step: int
    files: dict[str, str]
    consumed: list[str]
    interactions: list[str]
    algorithm: dict[str, Any]
    created: float

    def encoded(self) -> bytes:
        """The bytes on disk: JSON, keys sorted, so that equal manifests are equal bytes."""
        return msgspec.json.encode(self, order="sorted")
