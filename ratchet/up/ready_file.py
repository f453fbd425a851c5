"""The ready file of `ratchet up`: where it serves and with which keys. The same content is in DIR/run.json while it runs."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ratchet import durable
from ratchet.errors import RatchetError

RUN_FILE = "run.json"
"""Name of the copy in the data directory, where the command line finds it."""


class KeyPair(msgspec.Struct, forbid_unknown_fields=True):
    """The client's and the operator's key."""

    client: str
    operator: str


class Running(msgspec.Struct):
    """What the ready file holds: the URLs of both planes, the keys, and the pid of `ratchet up`."""

    gateway: str
    admin: str
    keys: KeyPair
    pid: int


def read(path: Path) -> Running:
    """Return what a ready file holds. OSError if there is none; msgspec.MsgspecError if it is malformed."""
    return msgspec.json.decode(path.read_bytes(), type=Running)


def write_private(path: Path, content: bytes) -> None:
    """Write a file of mode 0600 durably, whole or not at all. RatchetError if that is not possible."""
    try:
        durable.write(path, content, mode=0o600)
    except OSError as error:
        raise RatchetError(f"{path} cannot be written ({error.strerror})") from None
