"""The dialects by their route."""

from __future__ import annotations

from gateway.dialects.base import Dialect
from gateway.dialects.chat import Chat
from gateway.dialects.messages import Messages
from gateway.dialects.plain import Plain
from gateway.dialects.responses import Responses
from gateway.dialects.text import Text
from gateway.table import POOLING, TOKENS
from ratchet.buffer.interactions import Interactions


def every(interactions: Interactions) -> dict[str, Dialect]:
    """Those that are built. `interactions`: where earlier responses are found."""
    own: list[Dialect] = [Chat(), Text(), Responses(interactions), Messages(), *(Plain(path) for path in (*POOLING, *TOKENS))]
    return {dialect.path: dialect for dialect in own}
