"""Log lines, as text or JSON. The message of an unexpected exception is never logged, since it may contain a client's text."""

from __future__ import annotations

import asyncio
import logging
import sys
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import msgspec

from ratchet.config.telemetry import TelemetryConfig
from ratchet.errors import RatchetError

FIELDS = "ratchet"
"""The attribute of a log record that holds further fields: `extra={FIELDS: {...}}`."""
TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
OURS = (RatchetError, OSError)
"""Exceptions whose messages come from Ratchet or the operating system."""

access = logging.getLogger("gateway.access")
"""Logs one line for each request, if `access_log` is on."""
log = logging.getLogger(__name__)


class Text(logging.Formatter):
    """For people to read; further fields are `key=value`."""

    def __init__(self) -> None:
        super().__init__(TEXT)

    def format(self, record: logging.LogRecord) -> str:
        record.message = record.getMessage().replace("\r", "\\r").replace("\n", "\\n")  # no text from outside can begin a line
        record.asctime = self.formatTime(record)
        fields = "".join(f" {key}={value}" for key, value in getattr(record, FIELDS, {}).items())
        return "\n".join(filter(None, [self.formatMessage(record) + fields, _exception(record)]))


class Json(logging.Formatter):
    """One JSON object on each line: `time`, `level`, `logger`, `message`, further fields, `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, FIELDS, {}),
        }
        if exception := _exception(record):
            line["exception"] = exception
        return msgspec.json.encode(line).decode()


def _exception(record: logging.LogRecord) -> str:
    return describe_error(record.exc_info[1]) if record.exc_info and record.exc_info[1] is not None else ""


def describe_error(error: BaseException) -> str:
    """Return the traceback of an error and of its causes; the message only if it is one of OURS."""
    return "\n".join(_lines(error)).rstrip()


def _lines(error: BaseException) -> Iterator[str]:
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None:
        yield from _lines(before)
        yield "which led to:"
    yield from (frame.rstrip() for frame in traceback.format_tb(error.__traceback__))
    name = type(error).__qualname__
    yield f"{name}: {error}" if isinstance(error, OURS) else name
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _lines(inner)


def setup(config: TelemetryConfig) -> None:
    """Send every logger, and uncaught exceptions, to stderr in the configured format."""
    handler = logging.StreamHandler()
    handler.setFormatter(Json() if config.log_format == "json" else Text())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    sys.excepthook = _uncaught


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    log.critical("the gateway failed", exc_info=(kind, error, trace))


def unhandled(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Exception handler of the event loop. The default one would log the message of the exception."""
    error = context.get("exception")
    if error is None:
        log.error("the event loop: %s", context["message"])
    else:
        log.error("an error that nobody waited for", exc_info=error)
