"""`GET`, `DELETE /v1/responses/{id}`: stored responses of the caller's tenant."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import Response

from gateway.api.table import RESPONSES
from gateway.dialects.responses import retrievable
from gateway.errors import ApiError, not_found
from gateway.services import Services
from ratchet import names


def router(services: Services) -> APIRouter:
    routes = APIRouter(prefix=RESPONSES)

    @routes.get("/{item}")
    async def one(request: Request, item: str) -> Response:
        found = None
        if names.RESPONSE_ID.fullmatch(item) is not None:
            found = retrievable(await services.store.interactions.get(item, request.state.caller.tenant))
        if found is None:
            raise _absent(item)
        return Response(msgspec.json.encode(found), media_type="application/json")

    @routes.delete("/{item}")
    async def delete(request: Request, item: str) -> Response:
        known = names.RESPONSE_ID.fullmatch(item) is not None
        if not known or not await services.store.interactions.delete(item, request.state.caller.tenant, route=RESPONSES):
            raise _absent(item)
        return Response(msgspec.json.encode({"id": item, "object": "response", "deleted": True}), media_type="application/json")

    return routes


def _absent(item: str) -> ApiError:
    return not_found(f"Response with id {item[:64]!r} not found.", "response_id")
