"""What the gateway does about the failures of others."""

from __future__ import annotations

import logging

import pytest

from gateway.errors import store_may_fail
from ratchet.errors import StoreError, StoreUnavailable


def test_a_store_that_is_away_is_passed_over_and_any_other_fault_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def renew(error: StoreError) -> None:
        with store_may_fail(logging.getLogger("gateway"), "the heartbeat"):
            raise error

    renew(StoreUnavailable("no answer"))
    assert not caplog.records
    renew(StoreError("a script is wrong"))
    assert caplog.messages == ["the heartbeat failed: a script is wrong"]
