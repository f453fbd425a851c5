"""A plane is the ASGI application of one port. The data plane serves clients, the control plane operators.

It finds the route of a request, checks its key and scope, and calls the handler. What is not in its table is 404.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.access.keys import KeyRing, require
from gateway.api.table import Route, Table
from gateway.errors import ApiError, internal_error, not_found
from gateway.server.bodies import BodyBudget, BodyReservation
from gateway.server.http import ClientDisconnected, header, refuse
from gateway.server.state import RequestState
from gateway.telemetry.observe import Observer
from ratchet import names

CLIENT_CLOSED_REQUEST = 499
"""The status that is counted for a request whose client disconnected. Nobody receives it."""
LONGEST_ID = 128

log = logging.getLogger(__name__)


class ResponseSender:
    """ASGI's `send`, which adds `headers` to the start of the response and remembers its status. `status` is 0 until it starts."""

    def __init__(self, send: Send, request_id: bytes) -> None:
        self.status = 0
        self.headers = [(b"x-request-id", request_id)]
        self._send = send

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), *self.headers]
        await self._send(message)


class Plane:
    """The application of one port.

    `direct` has the handlers that are plain ASGI applications, by method and path. Every other route is served by `app`. Both find what
    they need to know of the request in `scope["state"]`, a `RequestState`.
    """

    def __init__(
        self,
        table: Table,
        keys: KeyRing,
        observer: Observer,
        budget: BodyBudget,
        app: ASGIApp,
        direct: Mapping[tuple[str, str], ASGIApp] | None = None,
    ) -> None:
        self._table = table
        self._keys = keys
        self._observer = observer
        self._budget = budget
        self._app = app
        self._direct = direct or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        state: RequestState = scope.setdefault("state", {})
        request_id = _request_id(scope)
        sender = ResponseSender(send, request_id)
        route = self._table.find(scope["path"])
        observation = state["observation"] = self._observer.begin(route, scope, request_id.decode())
        reservation = state["body_reservation"] = BodyReservation(self._budget)
        state["response_headers"], state["server_send"] = sender.headers, send
        try:
            await self._handle(route, scope, receive, sender)
        except ClientDisconnected:
            sender.status = CLIENT_CLOSED_REQUEST
            observation.failed("cancelled")
        except ApiError as error:
            observation.failed(error.code or str(error.status))
            await refuse(receive, sender, error, _allow(route) if error.status == 405 else ())
        except Exception:
            # Never the request's content: it may hold secrets.
            log.exception("request %s failed", request_id.decode())
            observation.failed("internal_error")
            if not sender.status:
                await refuse(receive, sender, internal_error())
        finally:
            reservation.release()
            observation.ended(sender.status)

    async def _handle(self, route: Route | None, scope: Scope, receive: Receive, send: Send) -> None:
        if route is None:
            raise not_found("Unknown path.", code="unknown_url")
        if route.scopes:
            caller = await self._keys.caller(scope, x_api_key=route.x_api_key)
            require(caller, route.scopes)
            scope["state"]["caller"] = caller
        method = scope["method"]
        if method in route.planned:
            raise ApiError(501, f"{method} {route.path} is not built yet.", code="not_implemented")
        if method not in route.built:
            raise ApiError(405, f"{method} is not allowed here.", code="method_not_allowed")
        await self._direct.get((method, route.path), self._app)(scope, receive, send)


def _allow(route: Route | None) -> list[tuple[bytes, bytes]]:
    if route is None:
        return []
    return [(b"allow", ", ".join(sorted(route.built | route.planned)).encode())]


def _request_id(scope: Scope) -> bytes:
    """The client's own id, if it is short and printable, else a new one. It is sent back, and never used to name anything."""
    given = header(scope, b"x-request-id")
    if given is not None and 0 < len(given) <= LONGEST_ID and given.isascii() and given.isprintable():
        return given.encode()
    return names.mint("req_").encode()
