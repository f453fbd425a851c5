"""`POST /v1/responses`."""

from __future__ import annotations

from typing import Any

import msgspec

from engines.routes import RESPONSES
from engines.types import Wants
from gateway.dialects import fitness
from gateway.dialects.base import Ask, Events, sendable
from gateway.dialects.convert import convert, without_nulls
from gateway.dialects.forms import ResponsesRequest
from gateway.dialects.parts import check_items
from gateway.errors import invalid
from ratchet import names
from ratchet.buffer.interactions import Interactions
from ratchet.config import GatewayConfig
from ratchet.types import Interaction, KeyRecord

UNSUPPORTED = frozenset({"conversation", "prompt", "context_management"})
LONGEST_CHAIN = 100
"""Responses that one response may continue, one after the other."""


class Responses(Events):
    path = RESPONSES
    prefix = names.RESPONSE_PREFIX

    def __init__(self, interactions: Interactions, longest: int) -> None:
        """`longest`: bytes of JSON that may come before a request's own input."""
        self._interactions = interactions
        self._longest = longest

    def check(self, tree: dict[str, Any], config: GatewayConfig) -> Ask:
        if tree.get("background"):
            raise invalid("Background responses are not offered here.", "background", "unsupported_parameter")
        given = without_nulls({key: value for key, value in tree.items() if key != "background"}, UNSUPPORTED)
        request = convert(given, ResponsesRequest)
        if not isinstance(request.input, str):
            check_items(request.input)
        force = fitness.sampling(request, request.max_output_tokens)
        previous, metadata, store = request.previous_response_id, request.metadata or {}, request.store is not False
        return Ask(
            tree=tree,
            sent=sendable(given, "previous_response_id", "stream_options"),
            model=request.model,
            stream=bool(request.stream),
            store=store,
            metadata=metadata,
            sampling=force,
            # A response repeats its request, of which the engine did not get everything.
            wants=Wants(overlay={"previous_response_id": previous, "metadata": metadata, "store": store, "background": False}),
            unfit=fitness.shaped(force) or ("grammar" if _may_have_grammar(request) else ""),
            previous=previous,
        )

    async def prepare(self, ask: Ask, caller: KeyRecord) -> Ask:
        """Puts what came before in front of the input, from the records. ApiError 400 if it is not there. StoreError."""
        turns: list[Any] = []
        at, size = ask.previous, 0
        for _ in range(LONGEST_CHAIN):
            if at is None:
                break
            found = await self._interactions.get(at, caller.tenant) if names.RESPONSE_ID.fullmatch(at) else None
            if found is None or found.response is None or found.status != "complete":
                raise invalid(f"Previous response with id {at[:64]!r} not found.", "previous_response_id", "previous_response_not_found")
            before = [*_items(found.request["input"]), *_output(found)]
            size += len(msgspec.json.encode(before))
            if size > self._longest:
                raise invalid(f"What came before this response is longer than {self._longest} bytes.", "previous_response_id")
            turns[:0] = before
            at = found.request.get("previous_response_id")
        if at is not None:
            raise invalid(f"More than {LONGEST_CHAIN} responses come before this one.", "previous_response_id")
        if turns:
            ask.sent["input"] = [*turns, *_items(ask.sent["input"])]
        return ask


def _may_have_grammar(request: ResponsesRequest) -> bool:
    form = request.text.format if request.text is not None else None
    return bool(request.tools) or (form is not None and form.get("type") != "text")


def _items(given: Any) -> list[Any]:
    return [{"role": "user", "content": given}] if isinstance(given, str) else list(given)


def _output(found: Interaction) -> list[Any]:
    """What was answered, as the next request's input: its log-probs are the answer's own."""
    items = [dict(item) for item in (found.response or {}).get("output") or () if isinstance(item, dict)]
    for item in items:
        if isinstance(item.get("content"), list):
            item["content"] = [{**part, "logprobs": None} if part.get("type") == "output_text" else part for part in item["content"]]
    return [item for item in items if item.get("type") in ("message", "function_call")]


def retrievable(found: Interaction | None) -> dict[str, Any] | None:
    """The stored `response` object; None if the interaction is none or was deleted."""
    if found is None or found.route != RESPONSES or found.response is None:
        return None
    return found.response
