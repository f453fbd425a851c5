"""`/v1/models`: bases, policies, and the versions that may be pinned, as far as the key may use them."""

from __future__ import annotations

from typing import Any

from fastapi import Request

from gateway.access.keys import may_use
from gateway.api.endpoint import Handlers, Id, as_list, endpoint
from gateway.api.table import INFER
from gateway.catalog import Model
from gateway.errors import no_model


class Models(Handlers):
    @endpoint("GET", "/v1/models", INFER)
    async def every(self, request: Request) -> object:
        """List bases, policies, and the versions of policies that may be pinned."""
        return as_list([_card(model) for model in self._allowed(request)])

    @endpoint("GET", "/v1/models/{id}", INFER)
    async def one(self, request: Request, item: Id) -> object:
        """Describe a model."""
        found = next((model for model in self._allowed(request) if model.id == item), None)
        if found is None:
            raise no_model(item)
        return _card(found)

    def _allowed(self, request: Request) -> list[Model]:
        return [model for model in self.services.catalog.models() if may_use(request.state.caller, model.id)]


def _card(model: Model) -> dict[str, Any]:
    return {"id": model.id, "object": "model", "created": int(model.created), "owned_by": "ratchet", "root": model.base}
