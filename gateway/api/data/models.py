"""`/v1/models`: bases, policies, and the versions that may be pinned, as far as the key may use them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from gateway.access.keys import may_use
from gateway.catalog import Model
from gateway.errors import no_model
from gateway.services import Services


def router(services: Services) -> APIRouter:
    routes = APIRouter(prefix="/v1/models")

    def allowed(request: Request) -> list[Model]:
        return [model for model in services.catalog.models() if may_use(request.state.caller, model.id)]

    @routes.get("")
    async def models(request: Request) -> dict[str, Any]:
        return {"object": "list", "data": [_card(model) for model in allowed(request)]}

    @routes.get("/{name}")
    async def model(request: Request, name: str) -> dict[str, Any]:
        found = next((model for model in allowed(request) if model.id == name), None)
        if found is None:
            raise no_model(name)
        return _card(found)

    return routes


def _card(model: Model) -> dict[str, Any]:
    return {"id": model.id, "object": "model", "created": int(model.created), "owned_by": "ratchet", "root": model.base}
