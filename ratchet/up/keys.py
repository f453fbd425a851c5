"""The two keys of `ratchet up`: made once, kept in DIR/keys.json, known to the store by their hash."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import msgspec

from ratchet import keys
from ratchet.buffer import Store
from ratchet.clock import wall
from ratchet.errors import RatchetError
from ratchet.types import KeyRecord

SCOPES = {"client": ["infer", "feedback"], "operator": ["operator"]}
TENANT = "default"


class KeyPair(msgspec.Struct, forbid_unknown_fields=True):
    """The keys themselves, as in `keys.json` and the ready file."""

    client: str
    operator: str


def load_or_create(data: Path) -> KeyPair:
    """The pair in `data`/keys.json, made if there is none. RatchetError: the file holds something else."""
    path = data / "keys.json"
    if path.exists():
        path.chmod(0o600)
        try:
            return msgspec.json.decode(path.read_bytes(), type=KeyPair)
        except msgspec.MsgspecError:
            raise RatchetError(f"{path} does not hold a client and an operator key; move it away to get new ones") from None
    pair = KeyPair(client=keys.mint(), operator=keys.mint())
    write_private(path, msgspec.json.encode(pair))
    return pair


async def register(store: Store, pair: KeyPair) -> None:
    """Puts the hashes of both keys in the store; those already there keep their date."""
    for name, scopes in SCOPES.items():
        digest = keys.digest(getattr(pair, name))
        found = await store.keys.find(digest)
        created = found.created if found is not None else wall()
        record = KeyRecord(id=keys.public_id(digest), tenant=TENANT, scopes=scopes, created=created, note=f"ratchet up, {name}")
        await store.keys.put(digest, record)


def write_private(path: Path, content: bytes) -> None:
    """Writes `path`, mode 0600, durably and all at once (by rename)."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise RatchetError(f"{path} cannot be written ({error.strerror})") from None
