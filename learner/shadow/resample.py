"""Resampling a recorded prompt: the temperature, length limit and messages to use, and the record of the new answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engines import Sample
from ratchet import clock
from ratchet.buffer.schema import SHADOW_TENANT
from ratchet.types import Choice, Example, Interaction, Sampling, Signal

SOURCE = "source"
"""Metadata key of a resampled interaction. Its value is the id of the interaction that the prompt came from."""


def temperature_of(source: Interaction) -> float:
    """Return the recorded temperature; 1 for a greedy answer, since a policy gradient learns only from sampled ones."""
    return source.sampling.temperature if source.sampling.temperature > 0 else 1.0


def max_tokens_of(source: Interaction, limit: int) -> int:
    """Return the lower of `limit` and the recorded request's own limit, in tokens; at least 1."""
    own = source.sampling.max_tokens
    return limit if own is None else max(1, min(own, limit))


def messages_of(source: Interaction) -> list[dict[str, Any]]:
    """Return the request's chat messages, in the form that reward functions take.

    The text prompt of a completion becomes one user message. A prompt of token ids, or several prompts, give no message.
    """
    messages, prompt = source.request.get("messages"), source.request.get("prompt")
    if isinstance(messages, list):
        return list(messages)
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else []


def interaction(source: Interaction, samples: Sequence[Sample], *, ident: str, version: int, engine: str, max_tokens: int) -> Interaction:
    """Return the record of new answers by `version` to `source`'s prompt, with exact ids and log-probs. Clients never see it."""
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


def group(sampled: Interaction, rewards: Sequence[float]) -> Example:
    """Return the example of `sampled` and the rewards [n] of its answers, as the store would lease it."""
    signals = [Signal(sampled.id, choice, sampled.metric, reward) for choice, reward in enumerate(rewards)]
    return Example(sampled.id, "group", [sampled], signals, shadow=True)


def _choice(index: int, sample: Sample) -> Choice:
    message = {"role": "assistant", "content": sample.text}
    return Choice(index, list(sample.token_ids), list(sample.logprobs), message, sample.finish_reason)
