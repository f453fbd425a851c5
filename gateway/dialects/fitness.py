"""The sampling parameters in force, and whether a policy gradient may learn from what they sample."""

from __future__ import annotations

from gateway.dialects import schema
from gateway.dialects.base import or_neutral
from gateway.dialects.forms import ResponsesRequest
from ratchet.types import Sampling


def sampling(request: schema.Sampled | ResponsesRequest, max_tokens: int | None) -> Sampling:
    """Return the parameters in force, with neutral defaults."""
    return Sampling(
        temperature=or_neutral(request.temperature, 1.0),
        top_p=or_neutral(request.top_p, 1.0),
        top_k=max(0, request.top_k or 0),
        min_p=request.min_p or 0.0,
        frequency_penalty=request.frequency_penalty or 0.0,
        presence_penalty=request.presence_penalty or 0.0,
        repetition_penalty=or_neutral(request.repetition_penalty, 1.0),
        max_tokens=max_tokens,
        seed=request.seed,
    )


def shaped(force: Sampling) -> str:
    """Return the parameter that makes the sampling distribution differ from softmax(logits / T); "" if none does."""
    if force.temperature <= 0:
        return "greedy"
    if force.top_p < 1:
        return "top_p"
    if force.top_k > 0:
        return "top_k"
    if force.min_p > 0:
        return "min_p"
    if force.frequency_penalty or force.presence_penalty or force.repetition_penalty != 1:
        return "penalty"
    return ""


def unfit(request: schema.Sampled, force: Sampling, *, grammar: bool) -> str:
    """Return why a policy gradient may not learn from answers to this request; "" if it may, judged by the request alone.

    It may only if the engine samples from softmax(logits / T) itself: only then are the log-probs those of the policy.
    """
    if reason := shaped(force):
        return reason
    if request.logit_bias or request.allowed_token_ids:
        return "logit_bias"
    if grammar or request.structured_outputs is not None:
        return "grammar"
    if request.min_tokens:
        return "min_tokens"
    return "bad_words" if request.bad_words else ""
