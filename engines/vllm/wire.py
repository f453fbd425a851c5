"""The form of vLLM's requests and answers, as `vllm/entrypoints/openai` of 0.32 reads and writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from engines.base import EngineWire
from engines.openai import answers, errors
from engines.routes import CHAT, MESSAGES, RESPONSES, TEXT
from engines.types import Captured, Meaning, Request, StreamCapture, Wants
from engines.vllm.capture import ChoicesCapture, capture_whole
from ratchet import names
from ratchet.types import Sampling

NEUTRAL: dict[str, Any] = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
"""Sent where the request is silent, since the engine's own defaults may come from the model's generation_config.json."""
_DEFAULTS: dict[str, dict[str, Any]] = {
    CHAT: {"temperature": 1.0, **NEUTRAL},
    TEXT: {"temperature": 1.0, **NEUTRAL},
    RESPONSES: {"temperature": 1.0, "top_p": 1.0},
    MESSAGES: {"temperature": 1.0, "top_p": 1.0},
}
_NOTHING: dict[str, Any] = {}
COLDEST = 0.01
"""vLLM samples at this temperature where one below it, but above 0, is asked for (`_MAX_TEMP` in its sampling_params)."""


class VllmWire(EngineWire):
    """See `engines.base.EngineWire`."""

    exact_routes = frozenset({CHAT, TEXT})

    def request(self, route: str, fields: Mapping[str, Any], *, model: str, public_id: str, record: bool) -> Request:
        body = {**_DEFAULTS.get(route, _NOTHING), **fields, "model": model}
        if record and route in self.exact_routes:
            _ask_for_ids(body, route)
        if route == RESPONSES:
            body["request_id"] = public_id
        # vLLM makes the id of the other routes from this header: `chatcmpl-` or `cmpl-` and the value.
        return Request(route, msgspec.json.encode(body), {"x-request-id": names.bare(public_id)})

    def capture(self, route: str, wants: Wants, public_id: str, model: str) -> StreamCapture:
        if route in self.exact_routes:
            return ChoicesCapture(wants, public_id, model)
        return answers.capture(route, wants, public_id, model)

    def whole(self, route: str, body: bytes, wants: Wants, public_id: str, model: str) -> tuple[bytes, Captured]:
        if route in self.exact_routes:
            return capture_whole(body, wants, public_id, model)
        return answers.whole(route, body, wants, public_id, model)

    def meaning(self, status: int, headers: Mapping[str, str], body: bytes, model: str) -> Meaning:
        return errors.meaning(status, headers, body, model)

    def samples_truly(self, sampling: Sampling, *, launched: bool) -> str:
        if 0 < sampling.temperature < COLDEST:
            return "temperature"
        if not launched and sampling.temperature != 1:
            return "logprobs_mode"  # by its own default, `raw_logprobs`, they are those of T = 1
        return ""


def _ask_for_ids(body: dict[str, Any], route: str) -> None:
    # Asked for ids, vLLM repeats an empty prompt in place of the real one; such an answer is not learned from anyway.
    if not body.get("echo"):
        body["return_token_ids"] = True
        body["logprobs"] = True if route == CHAT else body.get("logprobs") or 0
    if body.get("stream"):
        body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
