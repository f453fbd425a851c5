"""All dialects, by route."""

from __future__ import annotations

from engines.routes import POOLING, TOKENS
from gateway.dialects.base import Dialect
from gateway.dialects.chat import Chat
from gateway.dialects.messages import Messages
from gateway.dialects.plain import Plain
from gateway.dialects.responses import Responses
from gateway.dialects.text import Text
from ratchet.buffer.interactions import Interactions
from ratchet.config import GatewayConfig


def every(interactions: Interactions, config: GatewayConfig) -> dict[str, Dialect]:
    """Return all dialects, by path. `interactions`: where earlier responses are stored."""
    responses = Responses(interactions, config.limits.max_body_bytes)
    own: list[Dialect] = [Chat(), Text(), responses, Messages(), *(Plain(path) for path in (*POOLING, *TOKENS))]
    return {dialect.path: dialect for dialect in own}
