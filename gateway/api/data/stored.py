"""OpenAI's stored completions: the recorded chat answers of the caller's tenant."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from gateway.api.table import CHAT
from gateway.dialects.convert import convert
from gateway.dialects.schema import Metadata, Strict
from gateway.errors import ApiError, invalid, not_found
from gateway.server import strict
from gateway.server.http import read_body
from gateway.services import Services
from ratchet import names
from ratchet.types import Interaction

Order = Literal["asc", "desc"]
Limit = Annotated[int, Query(ge=1, le=100)]
After = Annotated[str | None, Query(max_length=128)]
LISTS_AT_ONCE = 4
"""Lists that are read and built at a time; each may hold a page's worth of memory."""


class UpdateRequest(Strict):
    """`POST /v1/chat/completions/{id}`; null: none."""

    metadata: Metadata | None


def router(services: Services) -> APIRouter:
    routes = APIRouter(prefix=CHAT)
    lists = asyncio.Semaphore(LISTS_AT_ONCE)
    store = services.store.interactions

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
            found = await store.scan(tenant, limit=limit, after=after, order=order, route=CHAT, model=model, metadata=metadata)
            return _json(page([completion(item) for item in found.items], found.more, found.last))

    async def own(request: Request, item: str) -> Interaction:
        found = await store.get(_checked(item), request.state.caller.tenant)
        if found is None or found.route != CHAT:
            raise _absent()
        return found

    @routes.get("/{item}")
    async def one(request: Request, item: str) -> Response:
        return _json(completion(await own(request, item)))

    @routes.post("/{item}")
    async def update(request: Request, item: str) -> Response:
        limits = services.config.gateway.limits
        body = await read_body(request.scope, request.receive, limits.max_body_bytes)
        metadata = convert(strict.parse(body, limits.max_depth), UpdateRequest).metadata or {}
        found = await store.update(_checked(item), request.state.caller.tenant, route=CHAT, metadata=metadata)
        if found is None:
            raise _absent()
        return _json(completion(found))

    @routes.delete("/{item}")
    async def delete(request: Request, item: str) -> Response:
        if not await store.delete(_checked(item), request.state.caller.tenant, route=CHAT):
            raise _absent()
        return _json({"object": "chat.completion.deleted", "id": item, "deleted": True})

    @routes.get("/{item}/messages")
    async def messages(request: Request, item: str, limit: Limit = 20, after: After = None, order: Order = "asc") -> Response:
        found = await own(request, item)
        rows = [_message(f"{found.id}-{i}", message) for i, message in enumerate(found.request["messages"])]
        if order == "desc":
            rows.reverse()
        if after is not None:
            ids = [row["id"] for row in rows]
            rows = rows[ids.index(after) + 1 :] if after in ids else []
        return _json(page(rows[:limit], len(rows) > limit))

    return routes


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


def _json(value: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")
