"""What the OpenAPI document says of each built route beside its path and scope."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
from pydantic import BaseModel

from gateway.api.admin.engines import DrainRequest
from gateway.api.data.stored import UpdateRequest
from gateway.api.table import CHAT, MESSAGES, POLICY, RESPONSES, TEXT
from gateway.dialects.forms import MessagesRequest, ResponsesRequest
from gateway.dialects.plain import FORMS
from gateway.dialects.schema import ChatRequest, FeedbackRequest, MoveRequest, RollbackRequest, TextRequest
from ratchet.config import EngineConfig
from ratchet.keys import KeySpec

JSON, STREAM = "application/json", "text/event-stream"
PAGE: dict[str, Any] = {
    "limit": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
    "after": {"type": "string", "maxLength": 128},
    "order": {"type": "string", "enum": ["asc", "desc"], "default": "asc"},
}
"""The parameters of a list."""
FILTER: dict[str, Any] = {
    "model": {"type": "string", "maxLength": 512},
    "metadata": {
        "type": "object",
        "maxProperties": 16,
        "propertyNames": {"maxLength": 64},
        "additionalProperties": {"type": "string", "maxLength": 512},
    },
}

PLAIN = {
    "/v1/embeddings": "Embeddings of texts.",
    "/v1/rerank": "Documents in the order of their relevance to a query.",
    "/v1/score": "How much each text has to do with another.",
    "/tokenize": "The token ids of a prompt or a chat.",
    "/detokenize": "The text of token ids.",
}
Form = msgspec.Struct | BaseModel
ENGINE = "/admin/engines/{name}"


class Operation(NamedTuple):
    """`body`: the form that checks the request's body, None where none is read; `required`: whether it may be left out.

    `answers`: media types of a success.
    """

    summary: str
    body: type[Form] | None = None
    required: bool = True
    query: Mapping[str, Any] = {}
    status: int = 200
    answers: tuple[str, ...] = (JSON,)


OPERATIONS: dict[tuple[str, str], Operation] = {
    ("GET", "/healthz"): Operation("Whether the process lives."),
    ("GET", "/readyz"): Operation("Whether an engine can answer; 503 if none can."),
    ("GET", "/openapi.json"): Operation("This document."),
    ("POST", CHAT): Operation("A chat completion, whole or streamed.", ChatRequest, answers=(JSON, STREAM)),
    ("POST", TEXT): Operation("A text completion, whole or streamed.", TextRequest, answers=(JSON, STREAM)),
    ("POST", RESPONSES): Operation("A response, whole or as named events.", ResponsesRequest, answers=(JSON, STREAM)),
    ("GET", RESPONSES + "/{id}"): Operation("A stored response."),
    ("DELETE", RESPONSES + "/{id}"): Operation("Forgets it."),
    ("POST", MESSAGES): Operation("A message in Anthropic's form, whole or as named events.", MessagesRequest, answers=(JSON, STREAM)),
    **{("POST", path): Operation(PLAIN[path], form) for path, form in FORMS.items()},
    ("GET", CHAT): Operation("The tenant's stored completions.", query={**PAGE, **FILTER}),
    ("GET", CHAT + "/{id}"): Operation("A stored completion."),
    ("POST", CHAT + "/{id}"): Operation("Its metadata anew.", UpdateRequest),
    ("DELETE", CHAT + "/{id}"): Operation("Forgets it."),
    ("GET", CHAT + "/{id}/messages"): Operation("The messages it answered.", query=PAGE),
    ("GET", "/v1/models"): Operation("Bases, policies, and versions that may be pinned."),
    ("GET", "/v1/models/{id}"): Operation("One of them."),
    ("POST", "/v1/feedback"): Operation("A reward for an answer or an episode; durable once answered.", FeedbackRequest, status=202),
    ("GET", "/"): Operation("The status page.", answers=("text/html",)),
    ("GET", "/metrics"): Operation("Prometheus' metrics.", answers=("text/plain",)),
    ("GET", "/admin/ledger"): Operation("What became of every reward."),
    ("GET", "/admin/policies"): Operation("Policies with their versions and the learner's status."),
    ("GET", POLICY): Operation("One policy."),
    ("GET", POLICY + "/versions/{version}"): Operation("One version with its manifest."),
    ("POST", POLICY + "/promote"): Operation("Makes a version live.", MoveRequest),
    ("POST", POLICY + "/rollback"): Operation("Goes back to a version, or to the one before.", RollbackRequest, required=False),
    ("POST", POLICY + "/train"): Operation("Asks the learner for a step soon."),
    ("GET", "/admin/engines"): Operation("Replicas, their health and adapters."),
    ("POST", "/admin/engines"): Operation("Adds an engine that already runs.", EngineConfig, status=201),
    ("GET", ENGINE): Operation("One replica."),
    ("DELETE", ENGINE): Operation("It goes once no gateway has a request at it.", status=202),
    ("POST", ENGINE + "/drain"): Operation("It takes no new requests, or takes them again.", DrainRequest, required=False),
    ("GET", "/admin/keys"): Operation("Keys, without their secrets."),
    ("POST", "/admin/keys"): Operation("A new key; its secret is told once.", KeySpec),
    ("DELETE", "/admin/keys/{id}"): Operation("Revokes it."),
    ("GET", "/admin/interactions"): Operation("How many answers are stored, and why some are not learned from."),
}
