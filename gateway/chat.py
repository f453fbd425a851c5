"""Check a chat request, say which field is wrong, and what the answer may be used for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from engines.capture import Wants
from gateway import schema
from gateway.errors import ApiError, invalid
from gateway.schema import ChatRequest
from ratchet import names
from ratchet.types import Sampling

T = TypeVar("T")
PLACE = re.compile(r"^(?P<what>.*?)(?: - at (?P<key>`key` in )?`\$\.?(?P<path>.*)`)?$", re.DOTALL)
FIELD = re.compile(r"^Object (?P<how>contains unknown|missing required) field `(?P<name>.*)`$", re.DOTALL)
UNSUPPORTED = frozenset({"audio", "moderation"})
"""Of OpenAI's reference, but no engine here does it; taken and ignored it would mislead."""
GATEWAY_ONLY = ("store", "metadata")
"""Fields the gateway keeps to itself."""
NEUTRAL: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
"""Said aloud where the request is silent: an engine's own defaults may come from the model's folder and shape the distribution."""
COLDEST = 0.01
"""vLLM samples at this temperature where one below it, but above 0, is asked for (`_MAX_TEMP` in its sampling_params)."""


def convert(tree: Any, kind: type[T]) -> T:
    """`tree` as a `kind`. ApiError 400 that names the field."""
    try:
        return msgspec.convert(tree, kind)
    except msgspec.ValidationError as error:
        raise explain(str(error)) from None


def explain(text: str) -> ApiError:
    """msgspec's message as OpenAI's error."""
    place = PLACE.match(text)
    what, path = (place["what"], (place["path"] or "").replace("[...]", "") or None) if place is not None else (text, None)
    field = FIELD.match(what)
    if field is None:
        return invalid(f"Invalid value for {path or 'body'!r}: {what}.", path)
    param = f"{path}.{field['name']}" if path else field["name"]
    if field["how"].startswith("missing"):
        return invalid(f"Missing required parameter: {param!r}.", param, "missing_required_parameter")
    if param in UNSUPPORTED:
        return invalid(f"Unsupported parameter: {param!r} is not offered here.", param, "unsupported_parameter")
    return invalid(f"Unknown parameter: {param!r}.", param, "unknown_parameter")


def check(tree: dict[str, Any], max_n: int) -> ChatRequest:
    """The request, each field in its range. ApiError 400."""
    if tree.get("audio", 0) is None or tree.get("moderation", 0) is None:  # some clients send every field, as null
        tree = {key: value for key, value in tree.items() if key not in UNSUPPORTED or value is not None}
    request = convert(tree, ChatRequest)
    if (request.n or 1) > max_n:
        raise invalid(f"Invalid value for 'n': at most {max_n}.", "n", "integer_above_max_value")
    if request.top_logprobs is not None and not request.logprobs:
        raise invalid("'top_logprobs' needs 'logprobs' to be true.", "top_logprobs")
    if request.stream_options is not None and not request.stream:
        raise invalid("'stream_options' is only allowed when 'stream' is true.", "stream_options")
    if request.tool_choice not in (None, "none") and not request.tools:
        raise invalid("'tool_choice' is only allowed when 'tools' are given.", "tool_choice")
    return request


def episode(request: ChatRequest, from_header: str | None) -> str | None:
    """The episode the request belongs to; the body's word counts before the header's. ApiError 400 if it is malformed."""
    inside = (request.metadata or {}).get("episode_id")
    found, param = (inside, "metadata.episode_id") if inside is not None else (from_header, "x-ratchet-episode-id")
    if found is None:
        return None
    if names.EPISODE_ID.fullmatch(found) is None or names.RESPONSE_ID.fullmatch(found) is not None:
        raise invalid(f"Invalid value for {param!r}: 1-128 of A-Z a-z 0-9 . _ : - and not a response's id.", param)
    return found


def wants(request: ChatRequest) -> Wants:
    """What of the engine's answer the client asked to see."""
    options = request.stream_options
    usage = not request.stream or bool(options is not None and options.include_usage)
    return Wants(logprobs=bool(request.logprobs), token_ids=bool(request.return_token_ids), usage=usage)


def upstream(tree: Mapping[str, Any], model: str, extras: Mapping[str, Any]) -> bytes:
    """The body for the engine: the client's, the engine's own name for the model, and what the recorder needs."""
    body = {key: value for key, value in tree.items() if value is not None}
    for field in GATEWAY_ONLY:
        body.pop(field, None)
    return msgspec.json.encode({**NEUTRAL, **body, "model": model, **extras})


def sampling(request: ChatRequest) -> Sampling:
    """The parameters in force."""
    return Sampling(
        temperature=_or(request.temperature, 1.0),
        top_p=_or(request.top_p, 1.0),
        top_k=max(0, request.top_k or 0),
        min_p=request.min_p or 0.0,
        frequency_penalty=request.frequency_penalty or 0.0,
        presence_penalty=request.presence_penalty or 0.0,
        repetition_penalty=_or(request.repetition_penalty, 1.0),
        max_tokens=request.max_completion_tokens or request.max_tokens,
        seed=request.seed,
    )


def unfit(request: ChatRequest, *, launched: bool = True) -> str:
    """Why a policy gradient may not learn from answers to this request; "" if it may.

    It may only where the engine samples from softmax(logits / T) itself: the log-probs then are those of the policy.
    An engine that Ratchet did not launch may give them for T = 1, whatever T was (vLLM's default, `--logprobs-mode raw_logprobs`).
    """
    force = sampling(request)
    reasons = {
        "greedy": force.temperature <= 0,
        "temperature": 0 < force.temperature < COLDEST,
        "top_p": force.top_p < 1,
        "top_k": force.top_k > 0,
        "min_p": force.min_p > 0,
        "penalty": bool(force.frequency_penalty or force.presence_penalty) or force.repetition_penalty != 1,
        "logit_bias": bool(request.logit_bias) or bool(request.allowed_token_ids),
        "grammar": _has_grammar(request),
        "min_tokens": bool(request.min_tokens),
        "bad_words": bool(request.bad_words),
        "logprobs_mode": not launched and force.temperature != 1,
    }
    return next((reason for reason, applies in reasons.items() if applies), "")


def _has_grammar(request: ChatRequest) -> bool:
    formatted = request.response_format is not None and not isinstance(request.response_format, schema.TextFormat)
    forced = request.tool_choice not in (None, "none", "auto") or isinstance(request.function_call, schema.Named)
    # Engines may constrain the arguments of a `strict` function.
    strict = any(tool.function.strict for tool in request.tools or ())
    # vLLM holds the answer to one call by a grammar.
    single = request.parallel_tool_calls is False and bool(request.tools) and request.tool_choice != "none"
    return formatted or forced or strict or single or request.structured_outputs is not None


def _or(value: float | None, neutral: float) -> float:
    return neutral if value is None else float(value)
