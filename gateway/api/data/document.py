"""`GET /openapi.json`: the OpenAPI document, made once."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter
from fastapi.responses import Response

from gateway.api.openapi import document
from gateway.services import Services


def router(_: Services) -> APIRouter:
    routes, body = APIRouter(), msgspec.json.encode(document())

    @routes.get("/openapi.json")
    async def openapi() -> Response:
        return Response(body, media_type="application/json")

    return routes
