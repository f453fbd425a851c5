"""The two applications: the data plane and the control plane."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import cast

import msgspec
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.api.binding import router
from gateway.api.data.inference import INFERENCE
from gateway.api.endpoint import Handlers
from gateway.api.openapi import document
from gateway.api.routes import ADMIN, ADMIN_HANDLERS, DATA, DATA_HANDLERS, PLANES
from gateway.api.table import Table
from gateway.errors import ApiError, internal_error, invalid, store_unavailable
from gateway.server.bodies import BodyBudget
from gateway.server.http import refuse
from gateway.server.plane import Plane
from gateway.services import Services
from ratchet.errors import StoreError, StoreUnavailable

log = logging.getLogger(__name__)


def data_plane(services: Services) -> Plane:
    """The application of the port that clients reach. RuntimeError: an inference route lacks a dialect, or a dialect its route."""
    declared = {(endpoint.method, endpoint.path) for endpoint in INFERENCE}
    if unmatched := declared ^ {("POST", path) for path in services.dialects}:
        raise RuntimeError(f"a dialect without a declared route, or the reverse: {sorted(unmatched)}")
    app = _app(services, DATA_HANDLERS)
    app.state.openapi = msgspec.json.encode(document(PLANES))
    relayed = dict.fromkeys(declared, services.relay)
    return Plane(Table(DATA), services.keys, services.observer, BodyBudget(services.config.gateway.limits), app, relayed)


def admin_plane(services: Services) -> Plane:
    """The application of the port that operators reach."""
    app = _app(services, ADMIN_HANDLERS)
    return Plane(Table(ADMIN), services.keys, services.observer, BodyBudget(services.config.gateway.limits), app)


def _app(services: Services, handlers: Sequence[type[Handlers]]) -> FastAPI:
    """An application without pages of its own and without redirects: the table says what exists. Errors have OpenAI's shape."""
    app = FastAPI(openapi_url=None, redirect_slashes=False)
    app.include_router(router([group(services) for group in handlers]))
    app.add_exception_handler(ApiError, _refused)
    app.add_exception_handler(StoreError, _store_failed)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _broken)
    return app


class Refusal(Response):
    """The response for an ApiError."""

    def __init__(self, error: ApiError) -> None:
        super().__init__(status_code=error.status)
        self._error = error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await refuse(receive, send, self._error)


async def _refused(_: Request, error: Exception) -> Response:
    return Refusal(cast(ApiError, error))


async def _store_failed(request: Request, error: Exception) -> Response:
    if not isinstance(error, StoreUnavailable):
        log.error("%s %s: %s", request.method, request.scope["route"].path, error)
    return Refusal(store_unavailable())


async def _broken(_: Request, __: Exception) -> Response:
    """Starlette raises the error again after this, and the plane logs it."""
    return Refusal(internal_error())


async def _invalid(_: Request, error: Exception) -> Response:
    first = cast(RequestValidationError, error).errors()[0]
    param = str(first["loc"][-1])
    return Refusal(invalid(f"Invalid value for {param!r}: {first['msg']}.", param))
