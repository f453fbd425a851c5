"""The lineage of a version: the data and the configuration it was trained with, as its manifest records them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from learner.shadow.resample import SOURCE
from ratchet.config.model import PolicyConfig
from ratchet.types import Example


def interactions_of(examples: Sequence[Example]) -> list[str]:
    """Return the ids of the interactions that a step learned from, and of those whose prompts were resampled. Sorted, no duplicates."""
    answers = [answer for example in examples for answer in example.interactions]
    return sorted({answer.id for answer in answers} | {answer.metadata[SOURCE] for answer in answers if SOURCE in answer.metadata})


def newest(examples: Sequence[Example]) -> float:
    """Return the wall time of the newest answer. It is the date in the manifest, so that the same data gives the same manifest."""
    return max((answer.created for example in examples for answer in example.interactions), default=0.0)


def manifest_fields(
    name: str,
    config: PolicyConfig,
    examples: Sequence[Example],
    *,
    version: int,
    parent: int,
    step: int,
    base_digest: str,
    consumed: list[str],
) -> dict[str, Any]:
    """Return the lineage of a version that was trained on `examples`, in the form that `ratchet.adapters.write` takes."""
    learned = [example for example in examples if example.id in set(consumed)]
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
        "created": newest(examples),
    }
