"""`POST /v1/completions`: a prompt as text or as token ids."""

from __future__ import annotations

from typing import Any

from engines.routes import TEXT
from engines.types import Wants
from gateway.dialects import fitness, schema
from gateway.dialects.base import Ask, Dialect, sendable
from gateway.dialects.chat import check_options, wants_usage
from gateway.dialects.convert import convert, without_nulls
from gateway.dialects.schema import TextRequest
from gateway.errors import invalid
from ratchet import names
from ratchet.config import GatewayConfig

UNSUPPORTED = frozenset({"suffix", "best_of"})
MOST_PROMPTS = 64


class Text(Dialect):
    path = TEXT
    prefix = names.TEXT_PREFIX

    def check(self, tree: dict[str, Any], config: GatewayConfig) -> Ask:
        request = convert(without_nulls(tree, UNSUPPORTED), TextRequest)
        prompts, n = prompts_in(request.prompt), request.n or 1
        if prompts > MOST_PROMPTS:
            raise invalid(f"Invalid value for 'prompt': at most {MOST_PROMPTS} prompts.", "prompt")
        if n * prompts > config.limits.max_n:
            raise invalid(f"Invalid value for 'n': at most {config.limits.max_n} answers in all.", "n", "integer_above_max_value")
        check_options(request)
        if request.echo and request.logprobs is not None:
            # It crashes vLLM on a CPU (docs/gateway.md).
            raise invalid("'echo' with 'logprobs' is not offered here: prompts have no log-probs.", "logprobs", "unsupported_parameter")
        force = fitness.sampling(request, request.max_tokens or 16)
        grammar = request.response_format is not None and not isinstance(request.response_format, schema.TextFormat)
        shape = "batch" if prompts > 1 else "echo" if request.echo else ""
        return Ask(
            tree=tree,
            sent=sendable(tree),
            model=request.model,
            stream=bool(request.stream),
            expected=n * prompts,
            store=request.store is not False,
            metadata=request.metadata or {},
            sampling=force,
            wants=Wants(request.logprobs is not None, bool(request.return_token_ids), wants_usage(request)),
            unfit=shape or fitness.unfit(request, force, grammar=grammar),
        )


def prompts_in(prompt: schema.Prompt) -> int:
    """How many prompts there are in it. ApiError 400 for a list that mixes forms."""
    if isinstance(prompt, str) or all(isinstance(item, int) for item in prompt):
        return 1
    if all(isinstance(item, str) for item in prompt) or all(isinstance(item, list) for item in prompt):
        return len(prompt)
    raise invalid("Invalid value for 'prompt': a text, token ids, or a list of either.", "prompt")
