"""How many connections a port takes, and what they have in common."""

from __future__ import annotations

import logging
import resource
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from gateway.errors import ApiError
from ratchet.clock import monotonic
from ratchet.config import LimitsConfig

TURNED_AWAY = 256
"""Connections past the bound that are given the time to read why."""
SPARE = 256
"""Open files for everything that is no connection: the store, the log, the listening ports, what is being accepted."""
RESTED = 1.0
"""Seconds without a request after which a connection may be closed for a new one: a client that goes on at once keeps its own."""

log = logging.getLogger(__name__)


class Resting(Protocol):
    """A connection whose answers are out."""

    def give_way(self) -> bool:
        """Closes it at once; False if its client has not read all of its answer yet."""


class Door:
    """One port's: at most `connections`; `refused` hears of each answer given before the application was asked."""

    def __init__(self, limits: LimitsConfig, connections: int, refused: Callable[[ApiError], None]) -> None:
        self.connections = connections
        self.refused = refused
        self.turned_away = 0
        self._resting: OrderedDict[Resting, float] = OrderedDict()
        """Connections between two requests, and since when; the longest first."""
        self.header_bytes = limits.max_header_bytes
        self.header_line = min(limits.max_header_line, limits.max_header_bytes)
        self.headers = limits.max_headers
        self.header_seconds = limits.header_seconds
        self.keep_alive_seconds = limits.keep_alive_seconds

    def rests(self, connection: Resting) -> None:
        """It was answered, and nothing of a next request is there."""
        self._resting[connection] = monotonic()

    def works(self, connection: Resting) -> None:
        """It rests no more, or is gone."""
        self._resting.pop(connection, None)

    def makes_room(self) -> bool:
        """Whether the connection that has rested longest was closed; each is looked at once a rest, however many are turned away."""
        due = monotonic() - RESTED
        while self._resting and next(iter(self._resting.values())) <= due:
            connection, _ = self._resting.popitem(last=False)
            if connection.give_way():
                return True
        return False


def connections(limits: LimitsConfig) -> int:
    """`max_connections`, or as many as the system's bound on open files leaves; that bound is raised as far as needed and allowed."""
    others = limits.max_admin_connections + 2 * limits.max_inflight + TURNED_AWAY + SPARE  # a hedged request has two engines
    wanted = limits.max_connections + others
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    granted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < granted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (granted, hard))
    if granted >= wanted:
        return limits.max_connections
    left = max(1, granted - others)
    log.warning("the system allows %d open files, so only %d connections are taken, not %d", granted, left, limits.max_connections)
    return left
