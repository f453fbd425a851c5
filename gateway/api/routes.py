"""Every route that there is, by plane: the declared endpoints, and those that are planned."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.api import planned
from gateway.api.admin.counts import Counts
from gateway.api.admin.engines import Engines
from gateway.api.admin.keys import Keys
from gateway.api.admin.page import StatusPage
from gateway.api.admin.policies import Policies
from gateway.api.data.document import Document
from gateway.api.data.feedback import Feedback
from gateway.api.data.health import Health
from gateway.api.data.inference import INFERENCE
from gateway.api.data.models import Models
from gateway.api.data.stored_completions import StoredCompletions
from gateway.api.data.stored_responses import StoredResponses
from gateway.api.endpoint import Endpoint, Handlers, Planned
from gateway.api.table import Route

DATA_HANDLERS: tuple[type[Handlers], ...] = (Health, Document, StoredCompletions, Models, Feedback, StoredResponses)
ADMIN_HANDLERS: tuple[type[Handlers], ...] = (StatusPage, Counts, Policies, Engines, Keys)


def _declared(groups: Iterable[type[Handlers]]) -> tuple[Endpoint, ...]:
    return tuple(endpoint for handlers in groups for endpoint in handlers.endpoints)


PLANES = {"data": (*_declared(DATA_HANDLERS), *INFERENCE), "control": _declared(ADMIN_HANDLERS)}
"""The endpoints that are built, by plane."""


def routes(endpoints: Iterable[Endpoint], unbuilt: Iterable[Planned] = ()) -> tuple[Route, ...]:
    """The endpoints by path. ValueError if two declare the same method of a path, or different scopes for one path."""
    found: dict[str, Route] = {}
    for one in endpoints:
        _add(found, Route(one.path, one.scopes, frozenset({one.method}), x_api_key=one.x_api_key, operation=one.operation))
    for later in unbuilt:
        _add(found, Route(later.path, later.scopes, frozenset(), frozenset(later.methods.split())))
    return tuple(found.values())


def _add(found: dict[str, Route], new: Route) -> None:
    """Add the methods of `new` to those that its path has."""
    known = found.setdefault(new.path, new)
    if known is new:
        return
    if (known.built | known.planned) & (new.built | new.planned):
        raise ValueError(f"{new.path} is declared twice for the same method")
    if known.scopes != new.scopes:
        raise ValueError(f"the methods of {new.path} have different scopes: a key's scope is checked before the method")
    found[new.path] = known._replace(
        built=known.built | new.built,
        planned=known.planned | new.planned,
        x_api_key=known.x_api_key or new.x_api_key,
        operation=known.operation or new.operation,
    )


DATA = routes(PLANES["data"], planned.DATA)
"""The data plane, which clients reach."""
ADMIN = routes(PLANES["control"], planned.ADMIN)
"""The control plane, which operators reach."""
