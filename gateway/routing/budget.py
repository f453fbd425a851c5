"""A retry budget (Finagle's): retries stay a share of requests, so that a fleet that fails is not asked all the more."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ratchet.clock import monotonic
from ratchet.config import RetryConfig

WINDOW = 10.0
"""Seconds after which what ended weighs 1/e."""


class Budget:
    """Counts requests and retries: in full while they wait, decaying once they ended. Memory: six numbers."""

    def __init__(self, config: RetryConfig, clock: Callable[[], float] = monotonic) -> None:
        self._config = config
        self._clock = clock
        self._at = clock()
        self._waiting = self._retrying = 0
        self.requests = self.retries = 0.0
        """What ended lately."""

    @contextmanager
    def request(self) -> Iterator[Ticket]:
        """One request, for as long as it may be retried."""
        ticket = Ticket(self)
        self._waiting += 1
        try:
            yield ticket
        finally:
            self._decay()
            self._waiting -= 1
            self._retrying -= ticket.spent
            self.requests += 1
            self.retries += ticket.spent

    def take(self) -> bool:
        """Whether one more retry is within the budget; if so it is spent."""
        self._decay()
        allowed = self._config.share * (self.requests + self._waiting) + self._config.minimum
        if self.retries + self._retrying + 1 > allowed:
            return False
        self._retrying += 1
        return True

    def _decay(self) -> None:
        now = self._clock()
        factor = math.exp((self._at - now) / WINDOW)
        self._at = now
        self.requests *= factor
        self.retries *= factor


class Ticket:
    """One request's claim on the budget."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.spent = 0

    def take(self) -> bool:
        """Whether this request may be sent once more."""
        taken = self._budget.take()
        self.spent += taken
        return taken
