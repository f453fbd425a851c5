"""Find what implements a kind of engine, through the registry of configurations; no kind is named here."""

from __future__ import annotations

from engines.base import EngineControl, EngineKind, EngineWire
from ratchet.config.registry import ENGINES
from ratchet.errors import ConfigError
from ratchet.types import EngineRecord


def kind(name: str) -> EngineKind:
    """The implementation of a kind. ConfigError: there is none of that name."""
    try:
        found: EngineKind = ENGINES.model(name).kind()
    except ValueError as error:
        raise ConfigError(f"engine kind {error}") from None
    return found


def wire(name: str) -> EngineWire:
    """The form of a kind's requests and answers. ConfigError: there is no such kind."""
    return kind(name).wire


def connect(record: EngineRecord) -> EngineControl:
    """The control plane of a replica; no connection is made yet. ConfigError: there is no such kind."""
    return kind(record.kind).control(record)
