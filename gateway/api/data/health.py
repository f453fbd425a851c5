"""`/healthz`: the process lives. `/readyz`: it can answer, with or without the store."""

from __future__ import annotations

from fastapi import APIRouter

from gateway.errors import unavailable
from gateway.services import Services


def router(services: Services) -> APIRouter:
    routes = APIRouter()

    @routes.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @routes.get("/readyz")
    async def readyz() -> dict[str, str]:
        if services.relay.draining:
            raise unavailable("The gateway is shutting down.", "draining")
        if not (services.fleet.ready and services.worker_pool.engines_found):
            raise unavailable("No engine can answer yet.", "engine_unavailable")
        return {"status": "ready"}

    return routes
