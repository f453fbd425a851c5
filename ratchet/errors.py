"""What can go wrong, as one tree.

RatchetError
 +- ConfigError           the YAML, the environment or a flag is wrong (exit 2)
 +- StoreError
 |   +- StoreUnavailable  no answer in time, or the server refused the write (full, loading, read-only)
 |   +- StoreUnfit        the server would lose acknowledged data (no AOF, eviction on)
 |   +- Conflict          a compare-and-set lost: somebody moved the pointer or the lease
 +- FeedbackRefused
 |   +- TargetNotYours    the target belongs to another tenant, or was deleted (404)
 |   +- TooManyParked     the caller has too much parked feedback (429)
 +- EngineError
 |   +- EngineUnavailable cannot connect, or died before the first byte
 |   +- EngineRefused     the engine answered 4xx/5xx; `.status`, `.body`
 |   +- EngineBroken      died mid-stream, or answered what it must not
 |   +- EngineUnsupported its kind cannot do what was asked (501)
 +- AdapterError          an adapter on disk is not what its manifest says
 +- GateRefused           a candidate did not pass; `.gate`, `.why`
"""

from __future__ import annotations


class RatchetError(Exception):
    """Base of all errors Ratchet raises on purpose; `str(e)` is one line that says what to do."""


class ConfigError(RatchetError):
    """The configuration is wrong."""


class StoreError(RatchetError):
    """The store did not do what was asked."""


class StoreUnavailable(StoreError):
    """The store gave no answer in time or refused the write."""


class StoreUnfit(StoreError):
    """The store would lose acknowledged data."""


class Conflict(StoreError):
    """A compare-and-set lost."""


class FeedbackRefused(RatchetError):
    """Feedback that the store did not accept."""


class TargetNotYours(FeedbackRefused):
    """The target belongs to another tenant, or was deleted."""


class TooManyParked(FeedbackRefused):
    """The caller has too much feedback parked for targets nobody has seen."""


class EngineError(RatchetError):
    """An engine did not do what was asked."""


class EngineUnavailable(EngineError):
    """Cannot connect, or the engine died before its first byte."""


class EngineRefused(EngineError):
    """The engine answered with an error status."""

    def __init__(self, message: str, status: int, body: bytes = b"") -> None:
        super().__init__(message)
        self.status = status
        self.body = body


class EngineBroken(EngineError):
    """The engine died mid-stream or answered what it must not."""


class EngineUnsupported(EngineError):
    """This kind of engine cannot do what was asked."""


class AdapterError(RatchetError):
    """An adapter on disk is not what its manifest says."""


class GateRefused(RatchetError):
    """A candidate did not pass its gate; `gate` names the one that refused, `why` is one line."""

    def __init__(self, gate: str, why: str) -> None:
        super().__init__(f"{gate}: {why}")
        self.gate = gate
        self.why = why
