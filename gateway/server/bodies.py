"""The bytes of request bodies that a port holds at a time."""

from __future__ import annotations

from gateway.errors import Unread
from ratchet.config import LimitsConfig

RETRY_SECONDS = 1.0


class Bodies:
    """`held` bytes, over all requests of one port, of at most `most`; `seconds` a body may take to arrive."""

    def __init__(self, limits: LimitsConfig) -> None:
        self.held = 0
        self.most = limits.max_bodies_bytes
        self.seconds = limits.body_seconds


class Share:
    """What one request holds. Its plane gives it back when the request is over, for as long is the body's content held."""

    __slots__ = ("_bodies", "_held")

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self._held = 0

    @property
    def seconds(self) -> float:
        """Seconds the body may take."""
        return self._bodies.seconds

    def fits(self, size: int) -> None:
        """503, with nothing held, if `size` bytes more are not to be had now."""
        if self._bodies.held + size > self._bodies.most:
            message = "The gateway holds as many bytes of requests as it may; try again."
            raise Unread(503, message, code="overloaded", retry_after=RETRY_SECONDS)

    def take(self, size: int) -> None:
        """Holds `size` bytes more. ApiError 503 if they are not to be had."""
        self.fits(size)
        self._held += size
        self._bodies.held += size

    def give_back(self) -> None:
        self._bodies.held -= self._held
        self._held = 0
