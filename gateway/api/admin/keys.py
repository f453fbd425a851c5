"""`/admin/keys`: made, listed, revoked. A key is told once, to whoever made it; the store has its sha256."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import Response

from gateway.api.admin.policies import as_json, as_list, tree
from gateway.dialects.convert import convert
from gateway.errors import invalid, not_found
from gateway.services import Services
from ratchet.keys import KeySpec
from ratchet.types import KeyRecord


def router(services: Services) -> APIRouter:
    routes = APIRouter(prefix="/admin/keys")
    keys = services.store.keys

    @routes.get("")
    async def listed() -> Response:
        return as_list([shown(record) for record in await keys.all()])

    @routes.post("")
    async def create(request: Request) -> Response:
        spec = convert(await tree(request), KeySpec)
        if (fault := spec.fault()) is not None:
            field, what = fault
            raise invalid(f"Invalid value for {field!r}: {what}.", field)
        key, stored, record = spec.issue()
        await keys.put(stored, record)
        return as_json({**shown(record), "key": key})

    @routes.delete("/{item}")
    async def revoke(item: str) -> Response:
        if not await keys.revoke(item):
            raise not_found("There is no key of that id.", "id", "key_not_found")
        services.keys.forget(item)
        await services.worker_pool.forget_key(item)
        return as_json({"id": item, "object": "key", "deleted": True})

    return routes


def shown(record: KeyRecord) -> dict[str, object]:
    """A key as the API tells of it."""
    return {"object": "key", **msgspec.to_builtins(record)}
