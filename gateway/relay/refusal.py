"""What follows from an engine's error answer: an error for the client, or an exception that says which replica to ask instead."""

from __future__ import annotations

from collections.abc import Mapping

from engines import types
from gateway.errors import ApiError
from gateway.routing.replica import Replica
from ratchet.errors import EngineUnavailable

BUSY = (429, 503)
"""Statuses with which clients are told to come back later."""


class Moved(EngineUnavailable):
    """The replica lacks what the request needs. That is no failure, and cost it next to nothing: the next replica is asked."""


class NoAdapter(Moved):
    """It does not hold the adapter."""


class NoRoute(Moved):
    """It does not have the route."""


class Unsupported(Moved):
    """Engines of its kind cannot do what the request asks for."""


class Broken(EngineUnavailable):
    """Its connection broke between the request and the answer: it may have died of the request."""


class Stale(Broken):
    """The same of a kept connection, which the engine may only have closed just as it was used."""


class Busy(EngineUnavailable):
    """It asks for no requests for `seconds`."""

    def __init__(self, message: str, status: int, seconds: float) -> None:
        super().__init__(message)
        self.status = status
        self.seconds = seconds


def refusal(replica: Replica, model: str, status: int, headers: Mapping[str, str], body: bytes) -> ApiError | EngineUnavailable:
    """What to raise for an error answer of `replica`, which was asked for `model`. An ApiError is for the client to see."""
    match replica.wire.meaning(status, headers, body, model):
        case types.NoAdapter():
            return NoAdapter(f"{replica.name} no longer holds {model}")
        case types.NoRoute():
            return NoRoute(f"{replica.name} does not have this route")
        case types.Overloaded(seconds):
            return Busy(f"{replica.name} is overloaded", status if status in BUSY else 503, seconds)
        case types.ClientFault(message, param):
            return ApiError(status, message, param=param, code="engine_refused")
        case types.EngineFault():
            return EngineUnavailable(f"{replica.name} answered {status}")
