"""The client's side of an inference route: how a request is checked, and how an error ends its stream."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import msgspec

from engines.sse import frame
from engines.types import Wants
from gateway.errors import ApiError, invalid
from ratchet import names
from ratchet.config import GatewayConfig
from ratchet.types import KeyRecord, Sampling

GATEWAY_ONLY = ("store", "metadata")
"""Fields that are not sent to engines."""


class Ask(msgspec.Struct):
    """A checked request, in the terms that every route shares.

    `tree` is the body that is recorded, `sent` the body for the engine. A complete answer has `expected` choices. `unfit` is why a
    policy gradient may not learn from the answer, judged by the request alone; "" if it may.
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
    """The id of the response that this one continues."""


class Dialect(ABC):
    """One inference route. `prefix` begins the ids of its answers; `recorded`: its answers are kept as interactions."""

    path: str
    prefix = ""
    recorded = True

    @abstractmethod
    def check(self, tree: dict[str, Any], config: GatewayConfig) -> Ask:
        """Check every field of a request. Raises ApiError 400 if one is unknown or out of range."""

    async def prepare(self, ask: Ask, caller: KeyRecord) -> Ask:
        """Complete a request with data from the store. Raises ApiError."""
        return ask

    def fault(self, error: ApiError) -> bytes:
        """Return the last bytes of a stream that ends in an error."""
        return frame(error.body)


class Events(Dialect):
    """A route that streams named events."""

    def fault(self, error: ApiError) -> bytes:
        return b"event: error\ndata: %s\n\n" % error.event


def sendable(tree: Mapping[str, Any], *kept: str) -> dict[str, Any]:
    """Return the client's fields for the engine: without nulls, GATEWAY_ONLY and `kept`."""
    return {key: value for key, value in tree.items() if value is not None and key not in GATEWAY_ONLY and key not in kept}


def episode(ask: Ask, from_header: str | None) -> str | None:
    """Return the episode of a request; the body has precedence over the header. Raises ApiError 400 if it is malformed."""
    inside = ask.metadata.get("episode_id")
    found, param = (inside, "metadata.episode_id") if inside is not None else (from_header, "x-ratchet-episode-id")
    if found is None:
        return None
    if names.EPISODE_ID.fullmatch(found) is None or names.RESPONSE_ID.fullmatch(found) is not None:
        raise invalid(f"Invalid value for {param!r}: 1-128 of A-Z a-z 0-9 . _ : - and not a response's id.", param)
    return found


def or_neutral(value: float | None, neutral: float) -> float:
    return neutral if value is None else float(value)
