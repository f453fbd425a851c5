"""Log lines as text or JSON. Neither contains the message of an unexpected exception, which may hold a client's text."""

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
SAFE_EXCEPTIONS = (RatchetError, OSError)
"""Exceptions whose messages are ours or the system's."""

access = logging.getLogger("gateway.access")
"""Has one line per request, if `access_log` is on."""
log = logging.getLogger(__name__)


class TextFormatter(logging.Formatter):
    """For people. Further fields are written as `key=value`."""

    def __init__(self) -> None:
        super().__init__(TEXT)

    def format(self, record: logging.LogRecord) -> str:
        record.message = record.getMessage().replace("\r", "\\r").replace("\n", "\\n")  # so that a message cannot fake a second line
        record.asctime = self.formatTime(record)
        fields = "".join(f" {key}={value}" for key, value in getattr(record, FIELDS, {}).items())
        return "\n".join(filter(None, [self.formatMessage(record) + fields, _exception(record)]))


class JsonFormatter(logging.Formatter):
    """One JSON object per line: `time`, `level`, `logger`, `message`, further fields, `exception`."""

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
    return describe(record.exc_info[1]) if record.exc_info and record.exc_info[1] is not None else ""


def describe(error: BaseException) -> str:
    """The traceback of an exception and of those that led to it. Messages are left out unless they are safe."""
    return "\n".join(_lines(error)).rstrip()


def _lines(error: BaseException) -> Iterator[str]:
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None:
        yield from _lines(before)
        yield "which led to:"
    yield from (frame.rstrip() for frame in traceback.format_tb(error.__traceback__))
    name = type(error).__qualname__
    yield f"{name}: {error}" if isinstance(error, SAFE_EXCEPTIONS) else name
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _lines(inner)


def setup(config: TelemetryConfig) -> None:
    """Send all loggers, and uncaught exceptions, to stderr in the configured form."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if config.log_format == "json" else TextFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    sys.excepthook = _uncaught


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    log.critical("the gateway failed", exc_info=(kind, error, trace))


def unhandled(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """The event loop's handler of errors that nobody awaited. asyncio's own would log the exception's message."""
    error = context.get("exception")
    if error is None:
        log.error("the event loop: %s", context["message"])
    else:
        log.error("an error that nobody waited for", exc_info=error)
