"""The error with which a dialect refuses a request."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.dialects.base import Dialect
from gateway.errors import ApiError
from ratchet.config import GatewayConfig


def refusal(dialect: Dialect, body: dict[str, Any]) -> ApiError:
    """Return the error with which `dialect` refuses `body`; it must be a 400."""
    with pytest.raises(ApiError) as error:
        dialect.check(body, GatewayConfig())
    assert error.value.status == 400
    return error.value
