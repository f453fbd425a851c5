"""`/v1/responses/{id}`: the recorded responses of the caller's tenant."""

from __future__ import annotations

from fastapi import Request

from engines.routes import RESPONSES
from gateway.api.endpoint import Handlers, Id, endpoint
from gateway.api.table import INFER
from gateway.dialects.responses import retrievable
from gateway.errors import ApiError, not_found
from ratchet import names


class StoredResponses(Handlers):
    @endpoint("GET", RESPONSES + "/{id}", INFER)
    async def get(self, request: Request, item: Id) -> object:
        """Retrieve a stored response."""
        found = None
        if names.RESPONSE_ID.fullmatch(item) is not None:
            found = retrievable(await self.services.store.interactions.get(item, request.state.caller.tenant))
        if found is None:
            raise _absent(item)
        return found

    @endpoint("DELETE", RESPONSES + "/{id}", INFER)
    async def delete(self, request: Request, item: Id) -> object:
        """Delete a stored response."""
        known = names.RESPONSE_ID.fullmatch(item) is not None
        if not known or not await self.services.store.interactions.delete(item, request.state.caller.tenant, route=RESPONSES):
            raise _absent(item)
        return {"id": item, "object": "response", "deleted": True}


def _absent(item: str) -> ApiError:
    return not_found(f"Response with id {item[:64]!r} not found.", "response_id")
