"""OpenAI's stored completions: the recorded interactions of the caller's tenant."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from gateway.errors import invalid, not_found
from gateway.services import Services
from ratchet import names
from ratchet.types import Interaction

Order = Literal["asc", "desc"]
Limit = Annotated[int, Query(ge=1, le=100)]
After = Annotated[str | None, Query(max_length=128)]
LISTS_AT_ONCE = 4
"""Lists that are read and built at a time; each may hold a page's worth of memory."""


def router(services: Services) -> APIRouter:
    routes = APIRouter(prefix="/v1/chat/completions")
    lists = asyncio.Semaphore(LISTS_AT_ONCE)

    @routes.get("")
    async def listed(
        request: Request,
        limit: Limit = 20,
        after: After = None,
        order: Order = "asc",
        model: Annotated[str | None, Query(max_length=512)] = None,
    ) -> Response:
        tenant, metadata = request.state.caller.tenant, _metadata(request)
        async with lists:
            found = await services.store.interactions.scan(tenant, limit=limit, after=after, order=order, model=model, metadata=metadata)
            body = msgspec.json.encode(page([completion(item) for item in found.items], found.more, found.last))
        return Response(body, media_type="application/json")

    async def own(request: Request, item: str) -> Interaction:
        found = None
        if names.RESPONSE_ID.fullmatch(item) is not None:
            found = await services.store.interactions.get(item, request.state.caller.tenant)
        if found is None:
            raise not_found("No completion of yours has that id.", "completion_id")
        return found

    @routes.get("/{item}")
    async def one(request: Request, item: str) -> dict[str, Any]:
        return completion(await own(request, item))

    @routes.get("/{item}/messages")
    async def messages(request: Request, item: str, limit: Limit = 20, after: After = None, order: Order = "asc") -> dict[str, Any]:
        found = await own(request, item)
        rows = [{"id": f"{found.id}-{i}", **message} for i, message in enumerate(found.request["messages"])]
        if order == "desc":
            rows.reverse()
        if after is not None:
            ids = [row["id"] for row in rows]
            rows = rows[ids.index(after) + 1 :] if after in ids else []
        return page(rows[:limit], len(rows) > limit)

    return routes


def page(rows: list[dict[str, Any]], more: bool, last: str | None = None) -> dict[str, Any]:
    """OpenAI's list object. `last`: the id to go on after, where it is not the last row's."""
    ends = (rows[0]["id"], rows[-1]["id"]) if rows else (None, None)
    return {"object": "list", "data": rows, "first_id": ends[0], "last_id": last or ends[1], "has_more": more}


def completion(item: Interaction) -> dict[str, Any]:
    """An interaction as `chat.completion`; neither token ids nor log-probs are in it."""
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
        **{key: item.request.get(key) for key in ("temperature", "top_p", "seed", "tools", "tool_choice", "response_format")},
    }


def _metadata(request: Request) -> dict[str, str] | None:
    """`metadata[key]=value` parameters."""
    found: dict[str, str] = {}
    for key, value in request.query_params.multi_items():
        if key.startswith("metadata"):
            if not (key.startswith("metadata[") and key.endswith("]")) or len(found) >= 16 or len(key) > 74 or len(value) > 512:
                raise invalid("Filter by metadata with 'metadata[key]=value', 16 at most.", "metadata")
            found[key[9:-1]] = value
    return found or None
