"""OpenAI's stored completions: the recorded chat answers of the caller's tenant."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import Query, Request

from engines.routes import CHAT
from gateway.api.endpoint import BodyBounds, Handlers, Id, endpoint
from gateway.api.table import INFER
from gateway.dialects.schema import Metadata, Strict
from gateway.errors import ApiError, invalid, not_found
from gateway.services import Services
from ratchet import names
from ratchet.types import Interaction

Order = Annotated[Literal["asc", "desc"], Query()]
Limit = Annotated[int, Query(ge=1, le=100)]
After = Annotated[str | None, Query(max_length=128)]
METADATA: dict[str, Any] = {
    "type": "object",
    "maxProperties": 16,
    "propertyNames": {"maxLength": 64},
    "additionalProperties": {"type": "string", "maxLength": 512},
}
"""The filter `metadata[key]=value`, which FastAPI has no type for."""
LISTS_AT_ONCE = 4
"""Lists that are read and built at a time; each may hold a page's worth of memory."""


class UpdateRequest(Strict):
    """`POST /v1/chat/completions/{id}`; null: none."""

    metadata: Metadata | None


class StoredCompletions(Handlers):
    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self._interactions = services.store.interactions
        self._lists = asyncio.Semaphore(LISTS_AT_ONCE)

    @property
    def body_bounds(self) -> BodyBounds:
        limits = self.services.config.gateway.limits
        return BodyBounds(limits.max_body_bytes, limits.max_depth)

    @endpoint("GET", CHAT, INFER, query={"metadata": METADATA})
    async def page(
        self,
        request: Request,
        limit: Limit = 20,
        after: After = None,
        order: Order = "asc",
        model: Annotated[str | None, Query(max_length=512)] = None,
    ) -> object:
        """List the stored completions of the key's tenant."""
        metadata = _metadata(request)
        async with self._lists:
            found = await self._interactions.scan(
                request.state.caller.tenant, limit=limit, after=after, order=order, route=CHAT, model=model, metadata=metadata
            )
            return page([completion(item) for item in found.items], found.more, found.last)

    @endpoint("GET", CHAT + "/{id}", INFER)
    async def get(self, request: Request, item: Id) -> object:
        """Retrieve a stored completion."""
        return completion(await self._own(request, item))

    @endpoint("POST", CHAT + "/{id}", INFER)
    async def update(self, request: Request, item: Id, body: UpdateRequest) -> object:
        """Replace the metadata of a stored completion."""
        found = await self._interactions.update(_checked(item), request.state.caller.tenant, route=CHAT, metadata=body.metadata or {})
        if found is None:
            raise _absent()
        return completion(found)

    @endpoint("DELETE", CHAT + "/{id}", INFER)
    async def delete(self, request: Request, item: Id) -> object:
        """Delete a stored completion."""
        if not await self._interactions.delete(_checked(item), request.state.caller.tenant, route=CHAT):
            raise _absent()
        return {"object": "chat.completion.deleted", "id": item, "deleted": True}

    @endpoint("GET", CHAT + "/{id}/messages", INFER)
    async def messages(self, request: Request, item: Id, limit: Limit = 20, after: After = None, order: Order = "asc") -> object:
        """List the messages that a stored completion answered."""
        found = await self._own(request, item)
        rows = [_message(f"{found.id}-{i}", message) for i, message in enumerate(found.request["messages"])]
        if order == "desc":
            rows.reverse()
        if after is not None:
            ids = [row["id"] for row in rows]
            rows = rows[ids.index(after) + 1 :] if after in ids else []
        return page(rows[:limit], len(rows) > limit)

    async def _own(self, request: Request, item: str) -> Interaction:
        """The stored completion, if it is the caller's. ApiError 404."""
        found = await self._interactions.get(_checked(item), request.state.caller.tenant)
        if found is None or found.route != CHAT:
            raise _absent()
        return found


def page(rows: list[dict[str, Any]], more: bool, last: str | None = None) -> dict[str, Any]:
    """OpenAI's list object. `last`: the id to go on after, where it is not the last row's."""
    ends = (rows[0]["id"], rows[-1]["id"]) if rows else (None, None)
    return {"object": "list", "data": rows, "first_id": ends[0], "last_id": last or ends[1], "has_more": more}


def completion(item: Interaction) -> dict[str, Any]:
    """An interaction as `chat.completion`, its parameters as they were in force; neither token ids nor log-probs are in it."""
    force = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "seed")
    return {
        "id": item.id,
        "object": "chat.completion",
        "created": int(item.created),
        "model": item.model,
        "choices": [
            {"index": choice.index, "message": choice.message, "logprobs": None, "finish_reason": choice.finish_reason}
            for choice in item.choices
        ],
        "usage": item.usage or None,
        "metadata": item.metadata,
        "input_user": item.request.get("user"),
        **{key: getattr(item.sampling, key) for key in force},
        **{key: item.request.get(key) for key in ("tools", "tool_choice", "response_format")},
    }


def _message(row: str, message: dict[str, Any]) -> dict[str, Any]:
    """A message of the request as OpenAI's stored message; of an array of parts, `content` is the text."""
    content = message.get("content")
    parts = content if isinstance(content, list) else None
    if parts is not None:
        content = "".join(part.get("text", "") for part in parts)
    return {**message, "id": row, "content": content, "content_parts": parts}


def _metadata(request: Request) -> dict[str, str] | None:
    """`metadata[key]=value` parameters."""
    found: dict[str, str] = {}
    for key, value in request.query_params.multi_items():
        if key.startswith("metadata"):
            if not (key.startswith("metadata[") and key.endswith("]")) or len(found) >= 16 or len(key) > 74 or len(value) > 512:
                raise invalid("Filter by metadata with 'metadata[key]=value', 16 at most.", "metadata")
            found[key[9:-1]] = value
    return found or None


def _checked(item: str) -> str:
    """The id, if it is one. ApiError 404."""
    if names.RESPONSE_ID.fullmatch(item) is None:
        raise _absent()
    return item


def _absent() -> ApiError:
    return not_found("No completion of yours has that id.", "completion_id")
