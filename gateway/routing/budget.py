"""A retry budget, as Finagle's: retries stay a share of requests, so that they do not overload a failing fleet."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import TracebackType

from ratchet.clock import monotonic
from ratchet.config import RetryConfig

WINDOW = 10.0
"""Seconds after which a request that ended has a weight of 1/e."""
STEP = 0.1
"""Seconds between two decays."""


class Budget:
    """Counts requests and retries: in full while they wait, with decaying weight after they ended."""

    def __init__(self, config: RetryConfig, clock: Callable[[], float] = monotonic) -> None:
        self._config = config
        self._clock = clock
        self._at = clock()
        self.waiting = self.retrying = 0
        """Requests that may still be retried, and the retries that they spent."""
        self.requests = self.retries = 0.0
        """Requests and retries that ended, with decayed weights."""

    def request(self) -> Ticket:
        """Return the ticket of a request: a context manager to hold for as long as the request may be retried."""
        return Ticket(self)

    def take(self) -> bool:
        """Spend one retry. False if it is not within the budget."""
        self.decay()
        allowed = self._config.share * (self.requests + self.waiting) + self._config.minimum
        if self.retries + self.retrying + 1 > allowed:
            return False
        self.retrying += 1
        return True

    def decay(self) -> None:
        """Decay the weights of requests and retries that ended."""
        now = self._clock()
        if now - self._at < STEP:
            return
        factor = math.exp((self._at - now) / WINDOW)
        self._at = now
        self.requests *= factor
        self.retries *= factor


class Ticket:
    """One request's claim on the budget."""

    __slots__ = ("_budget", "broken", "spent")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.spent = 0
        self.broken = 0
        """Connections of the request that broke before an answer."""

    def __enter__(self) -> Ticket:
        self._budget.waiting += 1
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        budget = self._budget
        budget.decay()
        budget.waiting -= 1
        budget.requests += 1
        budget.retrying -= self.spent
        budget.retries += self.spent

    def take(self) -> bool:
        """Spend one retry on this request. False if the budget does not allow it."""
        taken = self._budget.take()
        self.spent += taken
        return taken
