"""The control plane's JSON: what the CLI and the page read, and the operator's moves."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import Response

from gateway.api.admin import engines, moves
from gateway.dialects.convert import convert
from gateway.dialects.schema import MoveRequest, RollbackRequest
from gateway.errors import not_found
from gateway.routing.replica import Replica
from gateway.server import strict
from gateway.server.http import read_body
from gateway.services import Services
from ratchet.errors import AdapterError
from ratchet.types import PolicyRecord

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
BODY_BYTES = 2**16
BODY_DEPTH = 8


def router(services: Services) -> APIRouter:
    routes = APIRouter()
    for build in (_counts, _engines, _policies, _moves):
        build(routes, services)
    return routes


def as_json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def as_list(rows: list[Any]) -> Response:
    return as_json({"object": "list", "data": rows})


async def tree(request: Request) -> dict[str, Any]:
    """An operator's body: a small JSON object; {} where there is none. ApiError 4xx."""
    body = await read_body(request.scope, request.receive, BODY_BYTES)
    return strict.parse(body or b"{}", BODY_DEPTH)


def _counts(routes: APIRouter, services: Services) -> None:
    @routes.get("/metrics")
    async def metrics() -> Response:
        return Response(await services.worker_pool.metrics_text(), headers={"content-type": PROMETHEUS})

    @routes.get("/admin/ledger")
    async def ledger() -> Response:
        return as_json(await services.store.feedback.ledger())

    @routes.get("/admin/interactions")
    async def interactions() -> Response:
        store = services.store.interactions
        return as_json({"count": await store.count(), "untrainable": await store.untrainable()})


def _engines(routes: APIRouter, services: Services) -> None:
    async def one(replica: Replica, status: int = 200) -> Response:
        return as_json((await engines.rows(services, replica))[0], status)

    @routes.get("/admin/engines")
    async def every() -> Response:
        return as_list(await engines.rows(services, *sorted(services.fleet.all(), key=lambda r: r.name)))

    @routes.post("/admin/engines")
    async def add(request: Request) -> Response:
        return await one(await engines.add(services, await tree(request)), 201)

    @routes.get("/admin/engines/{name}")
    async def engine(name: str) -> Response:
        return await one(engines.known(services, name))

    @routes.post("/admin/engines/{name}/drain")
    async def drain(request: Request, name: str) -> Response:
        asked = convert(await tree(request), engines.DrainRequest)
        return await one(await engines.drain(services, name, on=asked.drain))

    @routes.delete("/admin/engines/{name}")
    async def remove(name: str) -> Response:
        return await one(await engines.remove(services, name), 202)


def _policies(routes: APIRouter, services: Services) -> None:
    registry = services.store.registry

    async def described(record: PolicyRecord) -> dict[str, Any]:
        fields = {key: getattr(record, key) for key in ("name", "base", "live", "epoch", "step")}
        return {**fields, "versions": await registry.versions(record.name), "status": await registry.status(record.name)}

    @routes.get("/admin/policies")
    async def policies() -> Response:
        return as_list([await described(record) for record in await registry.policies()])

    @routes.get("/admin/policies/{name}")
    async def policy(name: str) -> Response:
        return as_json(await described(await moves.known(services, name)))

    @routes.get("/admin/policies/{name}/versions/{number}")
    async def version(name: str, number: str) -> Response:
        await moves.known(services, name)
        found = await registry.version(name, int(number)) if number.isascii() and number.isdigit() and len(number) < 10 else None
        if found is None:
            raise not_found("The policy has no such version.", "version")
        manifest: Any = None
        if found.path and name in services.config.policies:
            try:
                manifest = await services.shelf.manifest(found)
            except AdapterError as error:
                manifest = {"error": str(error)}
        return as_json({**msgspec.to_builtins(found), "manifest": manifest})


def _moves(routes: APIRouter, services: Services) -> None:
    async def moved(name: str, to: int, reason: Literal["promote", "rollback"]) -> Response:
        record = await moves.move(services, name, to, reason)
        return as_json({key: getattr(record, key) for key in ("name", "base", "live", "epoch", "step")})

    @routes.post("/admin/policies/{name}/promote")
    async def promote(request: Request, name: str) -> Response:
        return await moved(name, convert(await tree(request), MoveRequest).version, "promote")

    @routes.post("/admin/policies/{name}/rollback")
    async def rollback(request: Request, name: str) -> Response:
        to = convert(await tree(request), RollbackRequest).to
        return await moved(name, to if to is not None else await moves.previous(services, name), "rollback")

    @routes.post("/admin/policies/{name}/train")
    async def train(name: str) -> Response:
        await moves.known(services, name)
        return as_json({"job": await services.store.registry.request_training(name)})
