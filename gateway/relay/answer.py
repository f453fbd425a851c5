"""An engine's answer, from its first bytes on."""

from __future__ import annotations

from gateway.relay.transport import Closed, Response, TransportError
from gateway.routing.replica import Hold
from ratchet.clock import monotonic
from ratchet.errors import EngineBroken

MAX_ANSWER = 2**28
"""Bytes of an answer that is read whole."""


class Answer:
    """An answer that has begun, so that no other replica is asked any more. `first` holds its first bytes."""

    def __init__(self, hold: Hold, response: Response, first: bytes) -> None:
        self.replica = hold.replica
        self.first = first
        self.read = response.read
        """Returns the next bytes, or b"" at the end. Raises TransportError."""
        self.feed = response.feed
        self.received_at = 0.0
        """When bytes last arrived for `whole`, in monotonic seconds."""
        self._hold = hold
        self._response = response
        self._whole: bytes | None = None
        self._timed_out = False

    async def whole(self) -> bytes:
        """Read the answer to its end and return it. Raises EngineBroken if it breaks off, falls silent or is too long."""
        if self._whole is None:
            self._whole = await self._read()
        return self._whole

    async def _read(self) -> bytes:
        parts, size = [self.first], len(self.first)
        try:
            while size <= MAX_ANSWER:
                chunk = await self.read()
                if not chunk:
                    return b"".join(parts)
                parts.append(chunk)
                size += len(chunk)
                self.received_at = monotonic()
        except TransportError as error:
            raise EngineBroken(f"the engine broke off its answer: {error}") from error
        raise EngineBroken("the engine's answer has no end")

    def give_up(self, why: str, *, timed_out: bool = False) -> None:
        """Stop waiting for more: whoever is reading gets a TransportError.

        `timed_out`: the request's total time is over, which is not counted against the replica.
        """
        self._timed_out = timed_out
        self._response.fail(Closed(why))

    def answered(self) -> None:
        """Count a complete answer for the replica."""
        self.replica.answered()

    def broke(self) -> None:
        """Count a failure of the replica, which must then prove again that it generates. A request that timed out is no failure."""
        if not self._timed_out:
            self.replica.broke()

    def close(self) -> None:
        """Release the connection and the replica. An engine that is still generating stops."""
        self._response.close()
        self._hold.leave()
