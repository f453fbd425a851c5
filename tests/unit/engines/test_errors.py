"""engines.openai.errors: what an engine's error answer means."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from engines.openai.errors import NO_MESSAGE, PAUSE_SECONDS, meaning, message_of, retry_after
from engines.types import ClientFault, EngineFault, NoAdapter, NoRoute, Overloaded

NO_MODEL = b'{"error": {"message": "The model `support@7` does not exist.", "type": "NotFoundError", "code": 404}}'
NO_ANSWER = b'{"error": {"message": "Response with id \'resp_1\' not found.", "type": "NotFoundError", "code": 404}}'
PLAIN = b'{"error": {"message": "no", "code": 0}}'


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (404, NO_MODEL, NoAdapter),
        (404, b'{"detail": "Not Found"}', NoRoute),
        (404, b"<html>", NoRoute),
        (404, NO_ANSWER, ClientFault),  # about the request: a client must not be able to talk a route away
        (405, b'{"detail": "Method Not Allowed"}', NoRoute),
        (501, PLAIN, NoRoute),
        (429, PLAIN, Overloaded),
        (503, b"", Overloaded),
        (400, PLAIN, ClientFault),
        (422, PLAIN, ClientFault),
        (401, PLAIN, EngineFault),
        (500, PLAIN, EngineFault),
        (302, b"", EngineFault),
    ],
)
def test_each_answer_has_its_meaning(status: int, body: bytes, kind: type[object]) -> None:
    assert type(meaning(status, {}, body, "support@7")) is kind


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, PAUSE_SECONDS),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("-3", PAUSE_SECONDS),
        ("soon", PAUSE_SECONDS),
        ("", PAUSE_SECONDS),
        ("9" * 400, 999999999.0),
        ("Thu, 01 Jan 2026 00:00:30 GMT", 30.0),
        ("Thu, 01 Jan 2026 00:00:30", 30.0),
        ("Thu, 01 Jan 2020 00:00:30 GMT", 0.0),
        ("Thu, 99 Jan 2026 00:00:30 GMT", PAUSE_SECONDS),
    ],
)
def test_retry_after_is_a_number_or_a_date(header: str | None, seconds: float) -> None:
    assert retry_after(header, datetime(2026, 1, 1, tzinfo=UTC)) == seconds


@pytest.mark.parametrize(
    ("body", "message", "param"),
    [
        (b'{"error": {"message": "too long", "param": "messages", "code": 400}}', "too long", "messages"),
        (b'{"object": "error", "message": "flat", "code": 400}', "flat", None),
        (b'{"detail": "other"}', NO_MESSAGE, None),
        (b"<html>", NO_MESSAGE, None),
        (b"[" * 5000, NO_MESSAGE, None),
        (b"", NO_MESSAGE, None),
    ],
)
def test_an_engines_error_is_read_whatever_its_form(body: bytes, message: str, param: str | None) -> None:
    assert message_of(body) == (message, param)
