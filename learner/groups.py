"""What a step learns from and says of it: seeds, shadow records, lineage. Pure functions of their arguments."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from engines import Sample
from ratchet import clock, names
from ratchet.config.model import PolicyConfig
from ratchet.types import Choice, Example, Interaction, Sampling

SHADOW_TENANT = "_ratchet"
SOURCE = "source"
"""Metadata key of a shadow group: the interaction whose prompt it resampled."""
_SEEDS = 2**31


def seed_of(*parts: str | int) -> int:
    """A seed in [0, 2**31) that depends on every part and on nothing else, so that a replay draws the same."""
    return int.from_bytes(_hash(parts)[:8], "big") % _SEEDS


def shadow_id(*parts: str | int) -> str:
    """The id of the shadow group of `parts`: sampled again after a crash, it is the same group and is stored once."""
    return names.CHAT_PREFIX + _hash(("shadow", *parts)).hex()[:32]


def temperature_of(source: Interaction) -> float:
    """The temperature to resample at: the recorded one, or 1 for a greedy answer, which a policy gradient cannot use."""
    return source.sampling.temperature if source.sampling.temperature > 0 else 1.0


def max_tokens_of(source: Interaction, limit: int) -> int:
    """The configured limit, or the recorded request's own where that is lower."""
    own = source.sampling.max_tokens
    return limit if own is None else max(1, min(own, limit))


def messages_of(source: Interaction) -> list[dict[str, Any]]:
    """The chat that was asked, as the reward functions see it; a text completion's prompt is one message, one of ids is none."""
    messages, prompt = source.request.get("messages"), source.request.get("prompt")
    if isinstance(messages, list):
        return list(messages)
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else []


def shadow(source: Interaction, samples: Sequence[Sample], *, ident: str, version: int, engine: str, max_tokens: int) -> Interaction:
    """The record of `source`'s prompt resampled at `version`: exact ids and log-probs, nothing sent to a client."""
    return Interaction(
        id=ident,
        tenant=SHADOW_TENANT,
        policy=source.policy,
        version=version,
        base=source.base,
        engine=engine,
        route=source.route,
        created=clock.wall(),
        status="complete",
        request={"messages": messages_of(source), "n": len(samples)},
        prompt_ids=source.prompt_ids,
        choices=[_choice(i, sample) for i, sample in enumerate(samples)],
        sampling=Sampling(temperature=temperature_of(source), max_tokens=max_tokens),
        metric=source.metric,
        model=f"{source.policy}@{version}",
        metadata={SOURCE: source.id},
    )


def has_spread(rewards: Sequence[float]) -> bool:
    """Whether the rewards differ; equal ones say nothing and are never divided by a small number into noise."""
    return max(rewards) > min(rewards)


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


def _choice(index: int, sample: Sample) -> Choice:
    message = {"role": "assistant", "content": sample.text}
    return Choice(index, list(sample.token_ids), list(sample.logprobs), message, sample.finish_reason)


def _hash(parts: Sequence[str | int]) -> bytes:
    # The length before each part: no two lists of parts spell the same text.
    return hashlib.sha256("".join(f"{len(str(part))}:{part}" for part in parts).encode()).digest()
