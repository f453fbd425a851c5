"""Every route there is, who may call it, and whether it is built. What is not in here does not exist."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

INFER = frozenset({"infer"})
FEEDBACK = frozenset({"feedback"})
OPERATOR = frozenset({"operator"})
METRICS = frozenset({"operator", "metrics"})
PUBLIC: frozenset[str] = frozenset()


class Route(NamedTuple):
    """`path` with `{name}` for one segment; methods that are `built`, and those that answer 501. No scope: public."""

    path: str
    scopes: frozenset[str]
    built: frozenset[str]
    planned: frozenset[str] = frozenset()


def route(path: str, scopes: frozenset[str], built: str = "", planned: str = "") -> Route:
    return Route(path, scopes, frozenset(built.split()), frozenset(planned.split()))


CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"
POOLING = ("/v1/embeddings", "/v1/rerank", "/v1/score")
TOKENS = ("/tokenize", "/detokenize")
DATA = (
    route("/healthz", PUBLIC, "GET"),
    route("/readyz", PUBLIC, "GET"),
    route("/openapi.json", PUBLIC, "GET"),
    route(CHAT, INFER, "GET POST"),
    route(CHAT + "/{id}", INFER, "GET POST DELETE"),
    route(CHAT + "/{id}/messages", INFER, "GET"),
    route("/v1/models", INFER, "GET"),
    route("/v1/models/{id}", INFER, "GET"),
    route("/v1/feedback", FEEDBACK, "POST"),
    *(route(path, INFER, "POST") for path in (TEXT, RESPONSES, MESSAGES, *POOLING, *TOKENS)),
    route(RESPONSES + "/{id}", INFER, "GET DELETE"),
    route("/v1/files", OPERATOR, planned="GET POST"),
    route("/v1/files/{id}", OPERATOR, planned="GET DELETE"),
    route("/v1/files/{id}/content", OPERATOR, planned="GET"),
    route("/v1/fine_tuning/jobs", OPERATOR, planned="GET POST"),
    route("/v1/fine_tuning/jobs/{id}", OPERATOR, planned="GET"),
    *(route("/v1/fine_tuning/jobs/{id}/" + what, OPERATOR, planned="GET") for what in ("events", "checkpoints")),
    *(route("/v1/fine_tuning/jobs/{id}/" + what, OPERATOR, planned="POST") for what in ("cancel", "pause", "resume")),
    *(route("/v1/fine_tuning/alpha/graders/" + what, OPERATOR, planned="POST") for what in ("validate", "run")),
    route("/v1/evals", OPERATOR, planned="GET POST"),
    route("/v1/evals/{id}", OPERATOR, planned="GET POST DELETE"),
    route("/v1/evals/{id}/runs", OPERATOR, planned="GET POST"),
    route("/v1/evals/{id}/runs/{run}", OPERATOR, planned="GET POST DELETE"),
    route("/v1/evals/{id}/runs/{run}/output_items", OPERATOR, planned="GET"),
    route("/v1/evals/{id}/runs/{run}/output_items/{item}", OPERATOR, planned="GET"),
)
"""The data plane."""

POLICY = "/admin/policies/{name}"
ADMIN = (
    route("/", PUBLIC, "GET"),
    route("/metrics", METRICS, "GET"),
    route("/admin/ledger", OPERATOR, "GET"),
    route("/admin/policies", OPERATOR, "GET"),
    route(POLICY, OPERATOR, "GET"),
    route(POLICY + "/versions/{version}", OPERATOR, "GET"),
    *(route(f"{POLICY}/{what}", OPERATOR, "POST") for what in ("promote", "rollback", "train")),
    route("/admin/engines", OPERATOR, "GET POST"),
    route("/admin/engines/{name}", OPERATOR, "GET DELETE"),
    route("/admin/engines/{name}/drain", OPERATOR, "POST"),
    route("/admin/interactions", OPERATOR, "GET"),
    route("/admin/keys", OPERATOR, "GET POST"),
    route("/admin/keys/{id}", OPERATOR, "DELETE"),
    route("/admin/erase", OPERATOR, planned="POST"),
)
"""The control plane."""


class Table:
    """Finds the route of a path."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        self._exact = {r.path: r for r in self.routes if "{" not in r.path}
        self._patterns = [(re.compile(re.sub(r"\{\w+\}", "[^/]+", r.path)), r) for r in self.routes if "{" in r.path]

    def find(self, path: str) -> Route | None:
        """The route, or None."""
        found = self._exact.get(path)
        if found is not None:
            return found
        return next((r for pattern, r in self._patterns if pattern.fullmatch(path)), None)
