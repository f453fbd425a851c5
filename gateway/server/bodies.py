"""Limit the memory that the bodies of requests take."""

from __future__ import annotations

from gateway.errors import Unread
from ratchet.config import LimitsConfig

RETRY_SECONDS = 1.0


class BodyBudget:
    """The bytes that the bodies of all requests of a port may take together. `seconds` is how long a body may take to arrive."""

    def __init__(self, limits: LimitsConfig) -> None:
        self.reserved = 0
        self.max_bytes = limits.max_bodies_bytes
        self.seconds = limits.body_seconds


class BodyReservation:
    """The bytes reserved for the body of one request. They stay reserved until the request is over, since its content is kept as long."""

    __slots__ = ("_budget", "_size")

    def __init__(self, budget: BodyBudget) -> None:
        self._budget = budget
        self._size = 0

    @property
    def seconds(self) -> float:
        """Seconds the body may take to arrive."""
        return self._budget.seconds

    def check(self, size: int) -> None:
        """ApiError 503 if `size` more bytes are not available now."""
        if self._budget.reserved + size > self._budget.max_bytes:
            message = "The gateway holds as many bytes of requests as it may; try again."
            raise Unread(503, message, code="overloaded", retry_after=RETRY_SECONDS)

    def add(self, size: int) -> None:
        """Reserve `size` more bytes. ApiError 503 if they are not available."""
        self.check(size)
        self._size += size
        self._budget.reserved += size

    def release(self) -> None:
        """Give all of it back."""
        self._budget.reserved -= self._size
        self._size = 0
