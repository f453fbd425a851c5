"""`POST /v1/messages`, Anthropic's form."""

from __future__ import annotations

from typing import Any

from engines.routes import MESSAGES
from gateway.dialects.base import Ask, Events, or_neutral, sendable
from gateway.dialects.convert import convert, without_nulls
from gateway.dialects.fitness import shaped
from gateway.dialects.forms import MessagesRequest
from gateway.dialects.parts import check_blocks
from ratchet import names
from ratchet.config import GatewayConfig
from ratchet.types import Sampling

UNSUPPORTED = frozenset({"container", "mcp_servers", "context_management", "thinking", "output_config", "service_tier"})


class Messages(Events):
    path = MESSAGES
    prefix = names.MESSAGE_PREFIX

    def check(self, tree: dict[str, Any], config: GatewayConfig) -> Ask:
        request = convert(without_nulls(tree, UNSUPPORTED), MessagesRequest)
        check_blocks(request.system, "system")
        for message in request.messages:
            check_blocks(message.content, "messages")
        sampling = Sampling(
            temperature=or_neutral(request.temperature, 1.0),
            top_p=or_neutral(request.top_p, 1.0),
            top_k=request.top_k or 0,
            max_tokens=request.max_tokens,
        )
        return Ask(
            tree=tree,
            sent=sendable(tree),
            model=request.model,
            stream=bool(request.stream),
            store=request.store is not False,
            metadata=request.metadata or {},
            sampling=sampling,
            unfit=shaped(sampling) or ("grammar" if request.tools else ""),  # engines may hold calls to a grammar
        )
