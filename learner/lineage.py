"""The lineage of a version: what its manifest says of the data and the configuration that made it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from learner.resample import SOURCE
from ratchet.config.model import PolicyConfig
from ratchet.types import Example


def interactions_of(groups: Sequence[Example]) -> list[str]:
    """The ids whose data made the step: the answers, and the prompts that were resampled. Sorted, each once."""
    found = {group.interactions[0].id for group in groups}
    return sorted(found | {group.interactions[0].metadata[SOURCE] for group in groups if SOURCE in group.interactions[0].metadata})


def newest(groups: Sequence[Example]) -> float:
    """Wall time of the newest answer: the manifest's stamp, so that the same experience gives the same manifest."""
    return max((group.interactions[0].created for group in groups), default=0.0)


def manifest_fields(
    name: str,
    config: PolicyConfig,
    groups: Sequence[Example],
    *,
    version: int,
    parent: int,
    step: int,
    base_digest: str,
    consumed: list[str],
) -> dict[str, Any]:
    """The lineage of the version that `groups` made, as `ratchet.adapters.write` takes it."""
    learned = [group for group in groups if group.id in set(consumed)]
    return {
        "policy": name,
        "version": version,
        "parent": parent,
        "base": config.base,
        "base_digest": base_digest,
        "rank": config.lora.rank,
        "alpha": config.lora.alpha,
        "seed": config.seed,
        "step": step,
        "consumed": consumed,
        "interactions": interactions_of(learned),
        "algorithm": config.algorithm.model_dump(),
        "created": newest(groups),
    }
