"""What follows here from an engine's error answer."""

from __future__ import annotations

import pytest

from gateway.errors import ApiError
from gateway.relay.refusal import Busy, NoAdapter, NoRoute, refusal
from gateway.routing.replica import Replica
from ratchet.errors import EngineUnavailable
from ratchet.types import EngineRecord

REPLICA = Replica(EngineRecord("a", "vllm", "small", "http://127.0.0.1:1", "small"))
NO_MODEL = b'{"error": {"message": "The model `support@7` does not exist.", "type": "NotFoundError", "code": 404}}'
WRONG = b'{"error": {"message": "too long", "param": "messages", "code": 400}}'


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (404, NO_MODEL, NoAdapter),
        (404, b'{"detail": "Not Found"}', NoRoute),
        (429, WRONG, Busy),
        (400, WRONG, ApiError),
        (500, WRONG, EngineUnavailable),
    ],
)
def test_each_meaning_has_its_consequence(status: int, body: bytes, kind: type[Exception]) -> None:
    assert type(refusal(REPLICA, "support@7", status, {}, body)) is kind


def test_the_clients_own_fault_is_shown_to_it_with_its_field() -> None:
    error = refusal(REPLICA, "support@7", 422, {}, WRONG)
    assert isinstance(error, ApiError)
    assert (error.status, str(error), error.param, error.code) == (422, "too long", "messages", "engine_refused")


def test_a_busy_replica_says_for_how_long() -> None:
    error = refusal(REPLICA, "support@7", 503, {"retry-after": "7"}, b"")
    assert isinstance(error, Busy)
    assert (error.status, error.seconds) == (503, 7.0)


def test_what_an_engine_says_of_its_own_failure_is_repeated_to_nobody() -> None:
    assert "secret" not in str(refusal(REPLICA, "support@7", 500, {}, b'{"error": {"message": "secret"}}'))
