"""The door of each plane, plain ASGI: find the route, the caller, its scope; then hand over. What is not in the table is 404."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.access.keys import KeyRing, require
from gateway.api.table import Route, Table
from gateway.errors import ApiError, broken, not_found
from gateway.server.bodies import Bodies, Share
from gateway.server.http import ClientGone, header, refuse
from gateway.telemetry.observe import Observer
from ratchet import names

LONGEST_ID = 128

log = logging.getLogger(__name__)


class Reply:
    """`send`, with the request's id and `headers` on the answer, and a memory of what was sent."""

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
    """One listening port's application.

    `hot` are plain ASGI endpoints by (method, path); every other built route is `app`'s. Both find in `scope["state"]` the
    `caller`'s key and the request's `share` of `bodies`; what they add to its `headers` is on the answer, whatever that is. Its
    `send` is the server's own, for what follows an answer's start.
    """

    def __init__(
        self,
        table: Table,
        keys: KeyRing,
        observer: Observer,
        bodies: Bodies,
        app: ASGIApp,
        hot: Mapping[tuple[str, str], ASGIApp] | None = None,
    ) -> None:
        self._table = table
        self._keys = keys
        self._observer = observer
        self._bodies = bodies
        self._app = app
        self._hot = hot or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request_id = _request_id(scope)
        reply = Reply(send, request_id)
        route = self._table.find(scope["path"])
        seen = self._observer.begin(route, scope, request_id.decode())
        share = Share(self._bodies)
        scope["state"] = {"seen": seen, "headers": reply.headers, "share": share, "send": send}
        try:
            await self._enter(route, scope, receive, reply)
        except ClientGone:
            reply.status = 499
            seen.failed("cancelled")
        except ApiError as error:
            seen.failed(error.code or str(error.status))
            await refuse(receive, reply, error, _allow(route) if error.status == 405 else ())
        except Exception:
            # Never the request's content: it may hold secrets.
            log.exception("request %s failed", request_id.decode())
            seen.failed("internal_error")
            if not reply.status:
                await refuse(receive, reply, broken())
        finally:
            share.give_back()
            seen.ended(reply.status)

    async def _enter(self, route: Route | None, scope: Scope, receive: Receive, send: Send) -> None:
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
        await self._hot.get((method, route.path), self._app)(scope, receive, send)


def _allow(route: Route | None) -> list[tuple[bytes, bytes]]:
    if route is None:
        return []
    return [(b"allow", ", ".join(sorted(route.built | route.planned)).encode())]


def _request_id(scope: Scope) -> bytes:
    """The client's own, where it is a plain one; it is echoed and never used as an id."""
    given = header(scope, b"x-request-id")
    if given is not None and 0 < len(given) <= LONGEST_ID and given.isascii() and given.isprintable():
        return given.encode()
    return names.mint("req_").encode()
