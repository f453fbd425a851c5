"""What follows from an engine's error answer: an error for the client, or an exception that tells the dispatcher how to go on."""

from __future__ import annotations

from collections.abc import Mapping

from engines import types
from gateway.errors import ApiError
from gateway.routing.replica import Replica
from ratchet.errors import EngineUnavailable

BUSY = (429, 503)
"""Statuses with which clients are told to come back later."""


class NotServed(EngineUnavailable):
    """The replica lacks what the request needs. That is no failure and costs nearly nothing: the next replica is tried."""


class NoAdapter(NotServed):
    """It does not hold the adapter."""


class NoRoute(NotServed):
    """It does not have the route."""


class Unsupported(NotServed):
    """Engines of its kind cannot do what the request asks for."""


class ConnectionBroke(EngineUnavailable):
    """The connection broke after the request and before the answer. The request may be what crashed the engine."""


class StaleConnection(ConnectionBroke):
    """The same, on a connection that had been idle. The engine may merely have closed it just as it was used."""


class Busy(EngineUnavailable):
    """The replica asks for a pause of `seconds`."""

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
