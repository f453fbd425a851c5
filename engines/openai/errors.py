"""What an engine's error answer means: OpenAI's bodies, and the statuses of HTTP that are about the gateway or the route."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import msgspec

from engines.types import ClientFault, EngineFault, Meaning, NoAdapter, NoRoute, Overloaded

NOT_CLIENTS = frozenset({401, 403, 405, 407, 411, 415})
"""Statuses that are about the gateway's own access to the engine, not about the client's request."""
BUSY = frozenset({429, 503})
NO_ROUTE = frozenset({405, 501})
PAUSE_SECONDS = 1.0
"""The pause of a busy engine that names none."""
NO_MESSAGE = "The engine refused the request."


def meaning(status: int, headers: Mapping[str, str], body: bytes, model: str) -> Meaning:
    """What the error answer of an OpenAI-shaped engine means; `model` is its own name of what was asked."""
    message, param = message_of(body)
    if status == 404 and model in message:
        return NoAdapter()
    if status in NO_ROUTE or (status == 404 and message == NO_MESSAGE):
        return NoRoute()
    if status in BUSY:
        return Overloaded(retry_after(headers.get("retry-after")))
    if 400 <= status < 500 and status not in NOT_CLIENTS:
        return ClientFault(message, param)
    return EngineFault()


def retry_after(header: str | None, now: datetime | None = None) -> float:
    """Seconds that a `Retry-After` header asks for (RFC 9110: a number, or a date); PAUSE_SECONDS if it is neither."""
    if header is None:
        return PAUSE_SECONDS
    if header.isascii() and header.strip().isdigit():
        return float(header.strip()[:9])
    try:
        until = parsedate_to_datetime(header)
    except ValueError:
        return PAUSE_SECONDS
    until = until if until.tzinfo is not None else until.replace(tzinfo=UTC)
    return max(0.0, (until - (now or datetime.now(UTC))).total_seconds())


def message_of(body: bytes) -> tuple[str, str | None]:
    """The message and param of an error body, nested as OpenAI's or flat; NO_MESSAGE if it is neither."""
    try:
        tree = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        tree = None
    error = tree.get("error", tree) if isinstance(tree, dict) else None
    if not isinstance(error, dict) or not isinstance(error.get("message"), str):
        return NO_MESSAGE, None
    param = error.get("param")
    return error["message"], param if isinstance(param, str) else None
