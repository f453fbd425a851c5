"""`/v1/models`: bases, policies, and the versions that may be pinned."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from gateway.catalog import Model
from gateway.errors import no_model
from gateway.services import Services


def router(services: Services) -> APIRouter:
    routes = APIRouter(prefix="/v1/models")

    @routes.get("")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_card(model) for model in services.catalog.models()]}

    @routes.get("/{name}")
    async def model(name: str) -> dict[str, Any]:
        found = next((model for model in services.catalog.models() if model.id == name), None)
        if found is None:
            raise no_model(name)
        return _card(found)

    return routes


def _card(model: Model) -> dict[str, Any]:
    return {"id": model.id, "object": "model", "created": int(model.created), "owned_by": "ratchet", "root": model.base}
