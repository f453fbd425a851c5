"""The two keys of `ratchet up`: made once, kept in DIR/keys.json, known to the store by their hashes."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ratchet import keys
from ratchet.buffer import Store
from ratchet.clock import wall
from ratchet.errors import RatchetError
from ratchet.types import KeyRecord
from ratchet.up.ready_file import KeyPair, write_private

SCOPES = {"client": ["infer", "feedback"], "operator": ["operator"]}
TENANT = "default"


def load_or_create(data: Path) -> KeyPair:
    """Return the keys in `data`/keys.json, which is written if it is missing. RatchetError if the file holds something else."""
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
    """Put the hashes of both keys in the store. A key that is there already keeps its date of creation."""
    for name, scopes in SCOPES.items():
        digest = keys.digest(getattr(pair, name))
        found = await store.keys.find(digest)
        created = found.created if found is not None else wall()
        record = KeyRecord(id=keys.public_id(digest), tenant=TENANT, scopes=scopes, created=created, note=f"ratchet up, {name}")
        await store.keys.put(digest, record)
