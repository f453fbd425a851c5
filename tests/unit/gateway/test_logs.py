"""gateway.telemetry.logs: both forms of a line, and what neither holds."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest

from gateway.telemetry import logs
from ratchet.config.telemetry import TelemetryConfig
from ratchet.errors import StoreError

SECRET = "the secret of a client"


@pytest.fixture
def written() -> Iterator[tuple[logging.Logger, io.StringIO]]:
    """A logger of its own whose handler the test gives a form."""
    logger, stream = logging.getLogger("test.logs"), io.StringIO()
    handler = logging.StreamHandler(stream)
    logger.addHandler(handler)
    yield logger, stream
    logger.removeHandler(handler)


def fail() -> None:
    try:
        raise KeyError(SECRET)
    except KeyError as error:
        raise ValueError(f"cannot do {SECRET}") from error


def logged(written: tuple[logging.Logger, io.StringIO], form: logging.Formatter) -> str:
    logger, stream = written
    logger.handlers[0].setFormatter(form)
    try:
        fail()
    except ValueError:
        logger.exception("request %s failed", "req_1")
    return stream.getvalue()


@pytest.mark.parametrize("form", [logs.TextFormatter(), logs.JsonFormatter()], ids=["text", "json"])
def test_an_unexpected_exception_tells_where_and_what_kind_but_not_its_words(
    written: tuple[logging.Logger, io.StringIO], form: logging.Formatter
) -> None:
    text = logged(written, form)
    assert SECRET not in text
    assert "request req_1 failed" in text
    for part in ("in fail", "KeyError", "which led to:", "ValueError"):
        assert part in text


def test_json_is_one_object_a_line_even_with_a_traceback(written: tuple[logging.Logger, io.StringIO]) -> None:
    lines = logged(written, logs.JsonFormatter()).splitlines()
    line = json.loads(lines[0])
    assert len(lines) == 1
    assert (line["level"], line["logger"], line["message"]) == ("error", "test.logs", "request req_1 failed")
    assert line["time"].endswith("+00:00")


def test_our_own_errors_keep_their_words() -> None:
    assert logs.describe(StoreError("the store is full")) == "StoreError: the store is full"
    assert "No such file" in logs.describe(FileNotFoundError(2, "No such file or directory"))
    group = logs.describe(ExceptionGroup(SECRET, [ValueError(SECRET), StoreError("full")]))
    assert group.splitlines() == ["ExceptionGroup", "ValueError", "StoreError: full"]


def test_fields_stand_beside_the_message_and_a_newline_makes_no_second_line(written: tuple[logging.Logger, io.StringIO]) -> None:
    logger, stream = written
    for form in (logs.JsonFormatter(), logs.TextFormatter()):
        logger.handlers[0].setFormatter(form)
        logger.warning("GET\n%s", "here", extra={logs.FIELDS: {"status": 200}})
    first, second, rest = stream.getvalue().split("\n", 2)
    assert json.loads(first)["status"] == 200
    assert json.loads(first)["message"] == "GET\nhere"
    assert second.endswith("GET\\nhere status=200")
    assert rest == ""


def test_what_the_loop_met_is_told_without_its_words(written: tuple[logging.Logger, io.StringIO], caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.new_event_loop()
    logs.unhandled(loop, {"message": f"Exception in callback {SECRET}", "exception": ValueError(SECRET)})
    logs.unhandled(loop, {"message": "Unclosed client session"})
    loop.close()
    assert SECRET not in "\n".join(logs.TextFormatter().format(record) for record in caplog.records)
    assert "Unclosed client session" in caplog.text


def test_a_process_that_dies_of_an_exception_does_not_print_its_words() -> None:
    program = (
        "from gateway.telemetry import logs; from ratchet.config.telemetry import TelemetryConfig as T;"
        f"logs.setup(T(log_format='json')); raise ValueError({SECRET[::-1]!r}[::-1])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert SECRET not in done.stderr
    assert json.loads(done.stderr)["exception"].endswith("ValueError")


@pytest.mark.parametrize(
    "endpoint", ["collector:4318", "ftp://collector", "http://", "http://user:key@collector:4318", "http://collector/?key=1", "http://c/#x"]
)
def test_an_endpoint_that_is_no_plain_url_is_refused(endpoint: str) -> None:
    with pytest.raises(ValueError, match=r"http|credentials"):
        TelemetryConfig(otlp_endpoint=endpoint)
    assert TelemetryConfig(otlp_endpoint="http://collector:4318/").otlp_endpoint == "http://collector:4318"
