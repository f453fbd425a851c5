"""The readers of OpenAI's and Anthropic's answers that carry no token ids, by route."""

from __future__ import annotations

from engines.openai import plain
from engines.openai.events import MessagesCapture, ResponsesCapture, capture_message, capture_response
from engines.routes import MESSAGES, RESPONSES
from engines.types import Captured, StreamCapture, Wants
from ratchet.errors import EngineUnsupported


def capture(route: str, wants: Wants, public_id: str, model: str) -> StreamCapture:
    """A reader of a streamed response or message. EngineUnsupported: the route does not stream."""
    if route == RESPONSES:
        return ResponsesCapture(wants, public_id, model)
    if route == MESSAGES:
        return MessagesCapture(public_id, model)
    raise EngineUnsupported(f"{route} does not stream")


def whole(route: str, body: bytes, wants: Wants, public_id: str, model: str) -> tuple[bytes, Captured]:
    """A whole answer: the body the client may see, and the record. EngineBroken: it is no answer."""
    if route == RESPONSES:
        return capture_response(body, wants, public_id, model)
    if route == MESSAGES:
        return capture_message(body, public_id, model)
    return plain.whole(body, model)
