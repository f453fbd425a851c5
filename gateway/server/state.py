"""What the gateway keeps in the ASGI scope of a request: `scope["state"]`, the one place that ASGI leaves to servers and applications."""

from __future__ import annotations

from typing import TypedDict

from starlette.types import Send

from gateway.server.bodies import BodyReservation
from gateway.server.client import ClientConnection
from gateway.telemetry.observe import Observation
from ratchet.types import KeyRecord


class RequestState(TypedDict, total=False):
    """`scope["state"]`, and so `request.state` of a Starlette request. Read it as `state: RequestState = scope["state"]`."""

    connection: ClientConnection
    """The client's connection. Set by the HTTP protocol (protocol.py), as all that follows is by the plane (plane.py)."""
    headers_by_name: dict[bytes, bytes]
    """The first request header of each name, in lower case. Set by `header` when it is first asked for one."""
    observation: Observation
    """What is counted, traced and logged of the request."""
    response_headers: list[tuple[bytes, bytes]]
    """Headers for the response, whatever that is. More may be added until it starts."""
    body_reservation: BodyReservation
    """The memory that is reserved for the request's body."""
    server_send: Send
    """The server's own `send`, without the plane's layer, for what follows the start of the response."""
    caller: KeyRecord
    """The key that the request carries. Only on routes that need one."""
