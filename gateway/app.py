"""The two applications: the data plane and the control plane."""

from __future__ import annotations

import logging
from typing import Any, cast

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.api.admin import keys, page
from gateway.api.admin import policies as api
from gateway.api.data import document, feedback, health, models, responses, stored
from gateway.api.table import ADMIN, DATA, Table
from gateway.errors import ApiError, broken, invalid, store_away
from gateway.server.bodies import Bodies
from gateway.server.http import refuse
from gateway.server.plane import Plane
from gateway.services import Services
from ratchet.errors import StoreError, StoreUnavailable

log = logging.getLogger(__name__)


def data_plane(services: Services) -> Plane:
    """What clients reach."""
    app = _app(module.router(services) for module in (health, document, models, stored, responses, feedback))
    hot = {("POST", path): services.relay for path in services.dialects}
    return Plane(Table(DATA), services.keys, services.observer, Bodies(services.config.gateway.limits), app, hot)


def admin_plane(services: Services) -> Plane:
    """What operators reach."""
    app = _app(module.router(services) for module in (api, keys, page))
    return Plane(Table(ADMIN), services.keys, services.observer, Bodies(services.config.gateway.limits), app)


def _app(routers: Any) -> FastAPI:
    """Without pages of its own and without redirects: the table says what exists. Errors in OpenAI's shape."""
    app = FastAPI(openapi_url=None, redirect_slashes=False)
    for router in routers:
        app.include_router(cast(APIRouter, router))
    app.add_exception_handler(ApiError, _refused)
    app.add_exception_handler(StoreError, _store_failed)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _broken)
    return app


class Refusal(Response):
    """An ApiError as the application's answer."""

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
    return Refusal(store_away())


async def _broken(_: Request, __: Exception) -> Response:
    """The error goes on to the plane, which logs it."""
    return Refusal(broken())


async def _invalid(_: Request, error: Exception) -> Response:
    first = cast(RequestValidationError, error).errors()[0]
    param = str(first["loc"][-1])
    return Refusal(invalid(f"Invalid value for {param!r}: {first['msg']}.", param))
