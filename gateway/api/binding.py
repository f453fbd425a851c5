"""Serve declared endpoints with FastAPI."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, cast

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import Response

from gateway.api.endpoint import JSON, Endpoint, Handlers
from gateway.dialects.convert import convert
from gateway.server import strict
from gateway.server.http import read_body

REQUEST = inspect.Parameter("request", inspect.Parameter.KEYWORD_ONLY, annotation=Request)
READ_HERE = ("request", "body")
"""Parameters of a handler that FastAPI does not fill in."""


def router(groups: Iterable[Handlers]) -> APIRouter:
    """The FastAPI routes of these handlers' endpoints."""
    routes = APIRouter()
    for handlers in groups:
        for endpoint in handlers.endpoints:
            routes.add_api_route(endpoint.path, _bound(handlers, endpoint), methods=[endpoint.method], response_model=None)
    return routes


def _bound(handlers: Handlers, endpoint: Endpoint) -> Callable[..., Awaitable[Response]]:
    """The function that FastAPI calls: it reads the body, and makes a response of what the handler returns."""
    handler = endpoint.handler
    if handler is None:
        raise TypeError(f"{endpoint.method} {endpoint.path} has no handler")
    takes = {parameter.name: parameter for parameter in endpoint.parameters}

    async def serve(request: Request, **values: Any) -> Response:
        if endpoint.counted:
            request.state.response_headers.extend(await handlers.services.quota.count(request.state.caller))
        if "request" in takes:
            values["request"] = request
        if "body" in takes:
            values["body"] = await _body(handlers, request, takes["body"])
        result = await handler(handlers, **values)
        return result if isinstance(result, Response) else Response(msgspec.json.encode(result), endpoint.status, media_type=JSON)

    filled = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for name, parameter in takes.items() if name not in READ_HERE]
    cast(Any, serve).__signature__ = inspect.Signature([REQUEST, *filled])
    return serve


async def _body(handlers: Handlers, request: Request, parameter: inspect.Parameter) -> Any:
    """The request's JSON body as the type that the handler's parameter has. ApiError 4xx."""
    bounds = handlers.body_bounds
    body = await read_body(request.scope, request.receive, bounds.max_bytes)
    tree = strict.parse(body or bounds.empty, bounds.max_depth)
    return convert(tree, parameter.annotation)
