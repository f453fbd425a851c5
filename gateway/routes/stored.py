"""OpenAI's stored completions: the recorded interactions of the caller's tenant."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request

from gateway.errors import invalid, not_found
from gateway.services import Services
from ratchet import names
from ratchet.types import Interaction

Order = Literal["asc", "desc"]
Limit = Annotated[int, Query(ge=1, le=100)]
After = Annotated[str | None, Query(max_length=128)]


def router(services: Services) -> APIRouter:
    routes = APIRouter(prefix="/v1/chat/completions")

    @routes.get("")
    async def listed(
        request: Request,
        limit: Limit = 20,
        after: After = None,
        order: Order = "asc",
        model: Annotated[str | None, Query(max_length=512)] = None,
    ) -> dict[str, Any]:
        found, more = await services.store.interactions.page(
            request.state.caller.tenant, limit=limit, after=after, order=order, model=model, metadata=_metadata(request)
        )
        return page([completion(item) for item in found], more)

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


def page(rows: list[dict[str, Any]], more: bool) -> dict[str, Any]:
    """OpenAI's list object."""
    first, last = (rows[0]["id"], rows[-1]["id"]) if rows else (None, None)
    return {"object": "list", "data": rows, "first_id": first, "last_id": last, "has_more": more}


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
