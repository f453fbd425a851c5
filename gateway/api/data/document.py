"""`GET /openapi.json`."""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import Response

from gateway.api.endpoint import JSON, Handlers, endpoint
from gateway.api.table import PUBLIC


class Document(Handlers):
    @endpoint("GET", "/openapi.json", PUBLIC)
    async def openapi(self, request: Request) -> object:
        """This document."""
        return Response(request.app.state.openapi, media_type=JSON)
