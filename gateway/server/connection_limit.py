"""Limit the number of connections that a port has open, and hold the limits that they share."""

from __future__ import annotations

import logging
import resource
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from gateway.errors import ApiError
from ratchet.clock import monotonic
from ratchet.config import LimitsConfig

MAX_REFUSED = 256
"""Refused connections that are open at a time, so that their clients can read why. Further ones are closed at once."""
SPARE_FILES = 256
"""Open files for all that is no connection: the store, the log, the listening ports, connections that are being accepted."""
IDLE_SECONDS = 1.0
"""Seconds without a request after which a connection may be closed in favour of a new one. A busy client keeps its own."""

log = logging.getLogger(__name__)


class IdleConnection(Protocol):
    """A connection with no request under way."""

    def close_if_sent(self) -> bool:
        """Close it now. False, with nothing done, if its client has not read all of the last response yet."""


class ConnectionLimit:
    """The limits of one port. `on_refused` is called for each error that is sent before the application is called."""

    def __init__(self, limits: LimitsConfig, max_connections: int, on_refused: Callable[[ApiError], None]) -> None:
        self.max_connections = max_connections
        self.on_refused = on_refused
        self.refused_open = 0
        """Refused connections that are still open."""
        self.header_bytes = limits.max_header_bytes
        self.header_line = min(limits.max_header_line, limits.max_header_bytes)
        self.headers = limits.max_headers
        self.header_seconds = limits.header_seconds
        self.keep_alive_seconds = limits.keep_alive_seconds
        self._idle: OrderedDict[IdleConnection, float] = OrderedDict()
        """Connections between two requests and when they became idle, the oldest first."""

    def mark_idle(self, connection: IdleConnection) -> None:
        """Its request was answered, and nothing of another one has arrived."""
        self._idle[connection] = monotonic()

    def mark_busy(self, connection: IdleConnection) -> None:
        """It has a request, or is closed."""
        self._idle.pop(connection, None)

    def close_one_idle(self) -> bool:
        """Close the connection that has been idle longest. False if there is none.

        Each is tried once while it is idle, so that many refused connections cost no more than few.
        """
        due = monotonic() - IDLE_SECONDS
        while self._idle and next(iter(self._idle.values())) <= due:
            connection, _ = self._idle.popitem(last=False)
            if connection.close_if_sent():
                return True
        return False


def max_connections(limits: LimitsConfig) -> int:
    """`limits.max_connections`, or as many as the limit on open files allows, which is raised as far as needed and allowed."""
    others = limits.max_admin_connections + 2 * limits.max_inflight + MAX_REFUSED + SPARE_FILES  # a hedged request has two engines
    wanted = limits.max_connections + others
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    granted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < granted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (granted, hard))
    if granted >= wanted:
        return limits.max_connections
    remaining = max(1, granted - others)
    log.warning("the system allows %d open files, so only %d connections are taken, not %d", granted, remaining, limits.max_connections)
    return remaining
