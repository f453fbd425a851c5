"""What a request goes through before it is sent on: routing, headers, body, JSON."""

from __future__ import annotations

import json
from typing import Any

from starlette.routing import Route

from bench.without.optimisation import optimisation, override, replace
from gateway.server import http, strict
from gateway.server.client import ClientConnection
from gateway.server.plane import Plane


@optimisation("inference routes are plain ASGI, beside FastAPI", instead="they are routes of the FastAPI application")
def plain_asgi() -> None:
    init = Plane.__init__

    def routed(self: Plane, *parts: Any) -> None:
        *others, app, hot = parts if len(parts) == 6 else (*parts, {})
        for (method, path), endpoint in hot.items():
            app.router.routes.append(Route(path, endpoint, methods=[method]))
        init(self, *others, app)  # type: ignore[call-arg]

    override(Plane, "__init__", routed)


@optimisation("a request's headers are read into a dictionary once", instead="each look-up goes through the list")
def header_dictionary() -> None:
    def header(scope: Any, name: bytes) -> str | None:
        return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), None)

    replace(http.header, header)


@optimisation("a body that arrived with its header is read without a time limit", instead="every body is read within a timeout")
def complete_body() -> None:
    override(ClientConnection, "request_complete", property(lambda self: False, lambda self, value: None))


@optimisation("duplicate keys are found by counting colons", instead="the standard library parses the body again and shows each pair")
def colon_count() -> None:
    def pairs(body: bytes) -> int:
        count = 0

        def counted(found: list[tuple[str, Any]]) -> None:
            nonlocal count
            count += len(found)

        try:
            json.loads(body, object_pairs_hook=counted)
        except (RecursionError, ValueError):  # too deep, or an integer of thousands of digits: refused either way
            return -1
        return count

    override(strict, "_colons", pairs)
