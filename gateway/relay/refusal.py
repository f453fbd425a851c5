"""What an engine's error answer means here: the client's fault, the engine's, or only that another replica is to be asked."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import msgspec

from gateway.errors import ApiError
from ratchet.errors import EngineUnavailable

NOT_OURS = frozenset({401, 403, 405, 407, 411, 415})
"""Statuses that tell of the gateway's own standing with the engine, not of the client's request."""
BUSY = frozenset({429, 503})
NO_ROUTE = frozenset({405, 501})
PAUSE_SECONDS = 1.0
"""For a busy engine that names no time."""
UNTOLD = "The engine refused the request."


class Moved(EngineUnavailable):
    """The replica lacks the adapter or the route: no failure, and no load to speak of; the next one is asked."""


class NoAdapter(Moved):
    """It does not hold the adapter."""


class NoRoute(Moved):
    """It does not have the route."""


class Broken(EngineUnavailable):
    """Its connection broke between the request and the answer: it may have died of the request."""


class Stale(Broken):
    """The same of a kept connection, which it may only have closed as that was used."""


class Busy(EngineUnavailable):
    """It asks to be left alone for `seconds`."""

    def __init__(self, message: str, status: int, seconds: float) -> None:
        super().__init__(message)
        self.status = status
        self.seconds = seconds


def refusal(name: str, model: str, status: int, headers: Mapping[str, str], body: bytes) -> ApiError | EngineUnavailable:
    """What replica `name`, asked for `model`, meant by this answer. An ApiError is the client's to see."""
    message, param = message_of(body)
    if status == 404 and model in message:
        return NoAdapter(f"{name} no longer holds {model}")
    if status in NO_ROUTE or (status == 404 and (message == UNTOLD or message == "File Not Found")):  # the latter is llama.cpp's
        return NoRoute(f"{name} does not have this route")
    if status in BUSY:
        return Busy(f"{name} is overloaded", status, retry_after(headers.get("retry-after")))
    if 400 <= status < 500 and status not in NOT_OURS:
        return ApiError(status, message, param=param, code="engine_refused")
    return EngineUnavailable(f"{name} answered {status}")


def retry_after(told: str | None, now: datetime | None = None) -> float:
    """Seconds that a `Retry-After` header asks for (RFC 9110: a number, or a date); PAUSE_SECONDS if it says nothing sensible."""
    if told is None:
        return PAUSE_SECONDS
    if told.isascii() and told.strip().isdigit():
        return float(told.strip()[:9])
    try:
        until = parsedate_to_datetime(told)
    except ValueError:
        return PAUSE_SECONDS
    until = until if until.tzinfo is not None else until.replace(tzinfo=UTC)
    return max(0.0, (until - (now or datetime.now(UTC))).total_seconds())


def message_of(body: bytes) -> tuple[str, str | None]:
    """The message and param in an engine's error body, whatever its form; the rest is the engine's own affair."""
    try:
        tree = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        tree = None
    error = tree.get("error", tree) if isinstance(tree, dict) else None
    if not isinstance(error, dict) or not isinstance(error.get("message"), str):
        return UNTOLD, None
    param = error.get("param")
    return error["message"], param if isinstance(param, str) else None
