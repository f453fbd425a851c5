"""Find the route of a request. What is not in the table does not exist."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

INFER = frozenset({"infer"})
FEEDBACK = frozenset({"feedback"})
OPERATOR = frozenset({"operator"})
METRICS = frozenset({"operator", "metrics"})
PUBLIC: frozenset[str] = frozenset()


class Route(NamedTuple):
    """A path and what the gateway needs to know before it calls a handler. `{name}` in a path stands for one segment."""

    path: str
    scopes: frozenset[str]
    """A key needs one of these. Empty: no key is needed."""
    built: frozenset[str]
    """Methods that have a handler."""
    planned: frozenset[str] = frozenset()
    """Methods that are answered with 501."""
    x_api_key: bool = False
    """Whether the key may also be sent as `x-api-key`."""
    operation: str = ""
    """`gen_ai.operation.name` of an inference route."""


class Table:
    """The routes of one port."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        self._exact = {r.path: r for r in self.routes if "{" not in r.path}
        self._patterns = [(re.compile(re.sub(r"\{\w+\}", "[^/]+", r.path)), r) for r in self.routes if "{" in r.path]

    def find(self, path: str) -> Route | None:
        """Return the route of a path, or None."""
        found = self._exact.get(path)
        if found is not None:
            return found
        return next((r for pattern, r in self._patterns if pattern.fullmatch(path)), None)
