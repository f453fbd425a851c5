"""Pauses between attempts."""

from __future__ import annotations


class Backoff:
    """Pauses that double from `first` to `longest` seconds, until a success resets them."""

    def __init__(self, first: float, longest: float) -> None:
        self.failures = 0
        """Attempts in a row that failed."""
        self._first = first
        self._longest = longest
        self._next = first

    def pause(self) -> float:
        """Return the seconds to wait after an attempt that failed."""
        pause = self._next
        self._next = min(pause * 2, self._longest)
        self.failures += 1
        return pause

    def reset(self) -> None:
        """Begin again with the first pause: an attempt succeeded."""
        self.failures = 0
        self._next = self._first
