"""`POST /v1/chat/completions`."""

from __future__ import annotations

from typing import Any

from engines.routes import CHAT
from engines.types import Wants
from gateway.dialects import fitness, schema
from gateway.dialects.base import Ask, Dialect, sendable
from gateway.dialects.convert import convert, without_nulls
from gateway.dialects.schema import ChatRequest
from gateway.errors import invalid
from ratchet import names
from ratchet.config import GatewayConfig

UNSUPPORTED = frozenset({"audio", "moderation"})
"""Fields of OpenAI's reference that no engine here supports. They are refused, since ignoring them would mislead."""


class Chat(Dialect):
    path = CHAT
    prefix = names.CHAT_PREFIX

    def check(self, tree: dict[str, Any], config: GatewayConfig) -> Ask:
        request = convert(without_nulls(tree, UNSUPPORTED), ChatRequest)
        _coherent(request, config)
        force = fitness.sampling(request, request.max_completion_tokens or request.max_tokens)
        return Ask(
            tree=tree,
            sent=sendable(tree),
            model=request.model,
            stream=bool(request.stream),
            expected=request.n or 1,
            store=request.store is not False,
            metadata=request.metadata or {},
            sampling=force,
            wants=Wants(bool(request.logprobs), bool(request.return_token_ids), wants_usage(request)),
            unfit=fitness.unfit(request, force, grammar=_has_grammar(request)),
        )


def _coherent(request: ChatRequest, config: GatewayConfig) -> None:
    if (request.n or 1) > config.limits.max_n:
        raise invalid(f"Invalid value for 'n': at most {config.limits.max_n}.", "n", "integer_above_max_value")
    if request.top_logprobs is not None and not request.logprobs:
        raise invalid("'top_logprobs' needs 'logprobs' to be true.", "top_logprobs")
    if request.tool_choice not in (None, "none") and not request.tools:
        raise invalid("'tool_choice' is only allowed when 'tools' are given.", "tool_choice")
    refused = set(request.chat_template_kwargs or ()) - set(config.template_kwargs)
    if refused:
        name = min(refused)[:64]
        raise invalid(f"{name!r} is not among the template arguments allowed here.", "chat_template_kwargs")
    check_options(request)


def check_options(request: schema.Sampled) -> None:
    """Raise ApiError 400 for stream options without a stream."""
    if request.stream_options is not None and not request.stream:
        raise invalid("'stream_options' is only allowed when 'stream' is true.", "stream_options")


def wants_usage(request: schema.Sampled) -> bool:
    options = request.stream_options
    return not request.stream or bool(options is not None and options.include_usage)


def _has_grammar(request: ChatRequest) -> bool:
    formatted = request.response_format is not None and not isinstance(request.response_format, schema.TextFormat)
    forced = request.tool_choice not in (None, "none", "auto") or isinstance(request.function_call, schema.Named)
    # Engines may constrain the arguments of a `strict` function.
    strict = any(tool.function.strict for tool in request.tools or ())
    # Engines may hold the answer to one call by a grammar.
    single = request.parallel_tool_calls is False and bool(request.tools) and request.tool_choice != "none"
    return formatted or forced or strict or single
