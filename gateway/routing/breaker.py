"""A circuit breaker (Nygard, Release It!, 2007): closed, open, half-open. Callers pass the time in."""

from __future__ import annotations

from typing import Literal

from ratchet.config import BreakerConfig

State = Literal["closed", "open", "half_open"]
CODES: dict[State, int] = {"closed": 0, "half_open": 1, "open": 2}
"""The values of the metric."""


class Breaker:
    """The breaker of one replica. `now` is always seconds on the monotonic clock.

    It is closed until `failures` requests in a row fail, then open. After its time it is half-open: one trial request is let
    through, whose first byte closes it and whose failure opens it for twice as long.
    """

    def __init__(self, config: BreakerConfig) -> None:
        self._config = config
        self._failures = 0
        self._until: float | None = None
        self._seconds = config.open_seconds
        self._trial = False

    def state(self, now: float) -> State:
        if self._until is None:
            return "closed"
        return "open" if now < self._until else "half_open"

    def admits(self, now: float) -> bool:
        """Whether a request may be sent."""
        return self._until is None or (now >= self._until and not self._trial)

    def enter(self, now: float) -> bool:
        """A request is sent. Return whether it is the trial, which ends with `began`, `failed` or `release`."""
        if self._until is None or now < self._until or self._trial:
            return False
        self._trial = True
        return True

    def release(self) -> None:
        """The trial ended without a result (its client disconnected), so the next request is the trial."""
        self._trial = False

    def began(self) -> None:
        """A first byte came. An answer may still break, so that the next failure counts as the last one in a row."""
        if self._until is not None:
            self._close()
            self._failures = self._config.failures - 1

    def succeeded(self) -> None:
        """A whole answer came."""
        self._close()
        self._failures = 0
        self._seconds = self._config.open_seconds

    def failed(self, now: float) -> None:
        """A request failed: no answer, a broken one, or an error of the engine's own."""
        self._failures += 1
        if self._until is not None and now < self._until:
            return  # a request that was sent before it opened
        if self._failures >= self._config.failures:
            self._trial = False
            self._until = now + self._seconds
            self._seconds = min(2 * self._seconds, self._config.max_open_seconds)

    def _close(self) -> None:
        self._until = None
        self._trial = False
