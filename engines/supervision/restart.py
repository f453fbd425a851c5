"""The adapters of an engine whose kind takes them only at its start: which it is started with, and when it has to be restarted."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from engines.reconcile import Wanted

STARTS = 2
"""Failed starts with a candidate after which the engine is started without it."""

log = logging.getLogger(__name__)


class NeedsRestart(Exception):
    """A restart would bring the engine an adapter that it lacks."""


class StartAdapters:
    """Chooses the adapters for each start of one engine.

    A candidate that keeps the engine from starting is left out after STARTS tries, so that the versions before it serve on.
    """

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._given: dict[str, Path] = {}
        self._on_trial: set[str] = set()
        self._failures: Counter[str] = Counter()
        self._logged: set[str] = set()

    @property
    def refused(self) -> list[str]:
        """Candidates that the engine is not started with any more."""
        return sorted(name for name, failures in self._failures.items() if failures >= STARTS)

    async def choose(self) -> dict[str, Path]:
        """The folders by name to start the engine with: what is retained, and the candidates. StoreUnavailable."""
        retained, candidates = await self._both()
        self._failures = Counter({name: self._failures[name] for name in candidates})
        tried = {name: path for name, path in candidates.items() if name not in self.refused}
        self._given, self._on_trial = {**tried, **retained}, tried.keys() - retained.keys()
        return self._given

    def start_failed(self) -> None:
        """The engine ended before it was ready."""
        self._failures.update(self._on_trial)

    async def check(self, listed: Collection[str]) -> None:
        """Compare what the engine lists with what it should hold. NeedsRestart; StoreUnavailable."""
        retained, candidates = await self._both()
        for name in self._on_trial.difference(listed):
            self._failures[name] = STARTS
        lacking = {**retained, **candidates}.keys() - set(listed) - set(self.refused)
        if lacking - self._given.keys():
            raise NeedsRestart(", ".join(sorted(lacking)))
        for name in lacking - self._logged:
            log.error("the engine was started with %s and does not list it", name)
        self._logged = lacking

    async def _both(self) -> tuple[dict[str, Path], dict[str, Path]]:
        return await self._wanted.retained(), await self._wanted.candidates()
