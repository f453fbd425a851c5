"""All errors that Ratchet raises, as one tree.

RatchetError
 +- ConfigError           the YAML, the environment or a flag is wrong (exit status 2)
 +- StoreError
 |   +- StoreUnavailable  the store did not respond in time, or refused a write (full, loading, read-only)
 |   +- StoreUnfit        the store could lose acknowledged data (no append-only file, or eviction is on)
 |   +- Conflict          a compare-and-set failed: somebody else has moved the pointer or the lease
 +- FeedbackRefused
 |   +- TargetNotYours    the target belongs to another tenant, or was deleted (404)
 |   +- TooManyParked     the tenant has too much parked feedback (429)
 +- EngineError
 |   +- EngineUnavailable the engine does not connect, or died before its first byte
 |   +- EngineRefused     the engine returned 4xx or 5xx; `.status`, `.body`
 |   +- EngineBroken      the engine died in the middle of a response, or its response is invalid
 |   +- EngineUnsupported this kind of engine does not support the operation (501)
 +- AdapterError          an adapter on disk does not match its manifest
 +- GateRefused           a candidate did not pass a gate; `.gate`, `.why`
"""

from __future__ import annotations


class RatchetError(Exception):
    """Base of all errors that Ratchet raises. `str(error)` is one line that says what to do."""


class ConfigError(RatchetError):
    """The YAML, the environment or a flag is wrong."""


class StoreError(RatchetError):
    """An operation of the store failed."""


class StoreUnavailable(StoreError):
    """The store did not respond in time, or refused a write."""


class StoreUnfit(StoreError):
    """The store could lose acknowledged data."""


class Conflict(StoreError):
    """A compare-and-set failed: somebody else has changed the value."""


class FeedbackRefused(RatchetError):
    """The store did not accept the feedback."""


class TargetNotYours(FeedbackRefused):
    """The target belongs to another tenant, or was deleted."""


class TooManyParked(FeedbackRefused):
    """The tenant has too much feedback parked for targets that are not known yet."""


class EngineError(RatchetError):
    """An operation of an engine failed."""


class EngineUnavailable(EngineError):
    """The engine does not connect, or died before its first byte."""


class EngineRefused(EngineError):
    """The engine returned an error: HTTP status `status` with the body `body`."""

    def __init__(self, message: str, status: int, body: bytes = b"") -> None:
        super().__init__(message)
        self.status = status
        self.body = body


class EngineBroken(EngineError):
    """The engine died in the middle of a response, or its response is invalid."""


class EngineUnsupported(EngineError):
    """This kind of engine does not support the operation."""


class AdapterError(RatchetError):
    """An adapter on disk does not match its manifest."""


class GateRefused(RatchetError):
    """A candidate did not pass the gate called `gate`; `why` is one line."""

    def __init__(self, gate: str, why: str) -> None:
        super().__init__(f"{gate}: {why}")
        self.gate = gate
        self.why = why
