"""What the relay needs to know of a route: how a request is checked, sent on, heard, and told to the client."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from engines.openai.events import kind_of
from engines.sse import frame
from engines.vllm.capture import Captured, StreamCapture, Wants, capture_whole
from gateway.errors import ApiError, invalid
from ratchet import names
from ratchet.config import GatewayConfig
from ratchet.types import KeyRecord, Sampling

GATEWAY_ONLY = ("store", "metadata")
"""Fields the gateway keeps to itself."""


class Ask(msgspec.Struct):
    """A request that was checked, in the words every route shares. `tree` is what is recorded, `sent` what goes to the engine.

    `expected` choices make a whole answer. `unfit` is why a policy gradient may not learn from it, as far as the request tells.
    """

    tree: dict[str, Any]
    sent: dict[str, Any]
    model: str
    stream: bool = False
    expected: int = 1
    store: bool = True
    metadata: dict[str, str] = {}
    sampling: Sampling = Sampling()
    wants: Wants = Wants()
    unfit: str = ""
    previous: str | None = None
    """The response that this one goes on from."""


class Capture(Protocol):
    """Hears a stream. `done` is true once its last event came; that one waits for the record."""

    done: bool

    def event(self, data: bytes) -> bytes | None:
        """The payload the client may see of an event's; None: none. EngineBroken."""

    def captured(self) -> Captured:
        """What was heard so far."""


class Dialect(ABC):
    """One inference route. `prefix` begins its answers' ids; `recorded`: its answers are kept as interactions."""

    path: str
    prefix = ""
    recorded = True
    neutral: Mapping[str, Any] = {}
    """Said aloud where the request is silent."""

    @abstractmethod
    def check(self, tree: dict[str, Any], config: GatewayConfig) -> Ask:
        """The request, each field in its range. ApiError 400."""

    async def prepare(self, ask: Ask, caller: KeyRecord) -> Ask:
        """The request as it is sent, after what needs the store. ApiError."""
        return ask

    def body(self, ask: Ask, public_id: str, model: str, extras: Mapping[str, Any]) -> bytes:
        """The body for the engine: the client's, the engine's own name for the model, and what the recorder needs."""
        return msgspec.json.encode({**self.neutral, **ask.sent, "model": model, **extras})

    def capture(self, ask: Ask, public_id: str, model: str) -> Capture:
        """Who hears a stream of it; `model` is the name that the client sees. Only of routes that stream."""
        raise TypeError(f"{self.path} does not stream")

    @abstractmethod
    def whole(self, told: bytes, ask: Ask, public_id: str, model: str) -> tuple[bytes, Captured]:
        """A whole answer: what the client may see, and what is kept. EngineBroken."""

    def frame(self, *payloads: bytes) -> bytes:
        """The events that carry these."""
        return frame(*payloads)

    def fault(self, error: ApiError) -> bytes:
        """The last bytes of a stream that ends in an error."""
        return frame(error.body)


class Choices(Dialect):
    """A route that answers in choices, with token ids where the recorder asks for them."""

    def capture(self, ask: Ask, public_id: str, model: str) -> Capture:
        return StreamCapture(ask.wants, public_id, model)

    def whole(self, told: bytes, ask: Ask, public_id: str, model: str) -> tuple[bytes, Captured]:
        return capture_whole(told, ask.wants, public_id, model)


class Events(Dialect):
    """A route whose stream is of named events. The engine gives no token ids, so answers are recorded and marked untrainable."""

    neutral = {"temperature": 1.0, "top_p": 1.0}

    def frame(self, *payloads: bytes) -> bytes:
        return b"".join([b"event: %s\ndata: %s\n\n" % (kind_of(payload).encode(), payload) for payload in payloads])

    def fault(self, error: ApiError) -> bytes:
        return b"event: error\ndata: %s\n\n" % error.event


def sendable(tree: Mapping[str, Any], *kept: str) -> dict[str, Any]:
    """The client's fields for the engine: neither nulls, nor what the gateway keeps to itself."""
    return {key: value for key, value in tree.items() if value is not None and key not in GATEWAY_ONLY and key not in kept}


def episode(ask: Ask, from_header: str | None) -> str | None:
    """The episode the request belongs to; the body's word counts before the header's. ApiError 400 if it is malformed."""
    inside = ask.metadata.get("episode_id")
    found, param = (inside, "metadata.episode_id") if inside is not None else (from_header, "x-ratchet-episode-id")
    if found is None:
        return None
    if names.EPISODE_ID.fullmatch(found) is None or names.RESPONSE_ID.fullmatch(found) is not None:
        raise invalid(f"Invalid value for {param!r}: 1-128 of A-Z a-z 0-9 . _ : - and not a response's id.", param)
    return found


def or_neutral(value: float | None, neutral: float) -> float:
    return neutral if value is None else float(value)
