"""The names of keys that Python uses (scripts/_1_keys.lua has the same), and the format of stored interactions."""

from __future__ import annotations

import threading

import msgspec
import zstandard

from ratchet.types import Interaction

LEDGER = "r:ledger"
POLICIES = "r:policies"
UNTRAINABLE = "r:untrainable"
KEYS = "r:keys"
ENGINES = "r:engines"
DESIRED = "r:engines:desired"
STORE_ID = "r:store"
SHADOW_TENANT = "_ratchet"
HEAD_BYTES = 18
"""Bytes of a packed interaction that suffice to know its size: zstd's longest frame header."""
_LEVEL = -1

_encoder = msgspec.msgpack.Encoder()
_local = threading.local()
_decoder = msgspec.msgpack.Decoder(Interaction)


def blob(item: str) -> str:
    return f"r:i:{item}"


def meta(item: str) -> str:
    return f"r:m:{item}"


def tombstone(item: str) -> str:
    return f"r:tombstone:{item}"


def index(tenant: str) -> str:
    return f"r:ti:{tenant}"


def feedback(fb: str) -> str:
    return f"r:f:{fb}"


def episode(tenant: str, name: str) -> str:
    return f"r:ep:{len(tenant.encode())}:{tenant}:{name}"


def ready(policy: str, kind: str) -> str:
    return f"r:ready:{kind}:{policy}"


def lease(policy: str) -> str:
    return f"r:l:{policy}"


def policy(name: str) -> str:
    return f"r:p:{name}"


def versions(name: str) -> str:
    return f"r:v:{name}"


def states(name: str) -> str:
    return f"r:vs:{name}"


def verdicts(name: str) -> str:
    return f"r:vv:{name}"


def lived(name: str) -> str:
    return f"r:h:{name}"


def status(name: str) -> str:
    return f"r:status:{name}"


def job(name: str) -> str:
    return f"r:train:{name}"


def pack(item: Interaction) -> bytes:
    """Return an interaction as msgpack, compressed with zstd.

    Raises ValueError if msgpack cannot hold it, for example an integer of more than 64 bits.
    """
    compressor = getattr(_local, "compressor", None)
    if compressor is None:  # making one costs more than using it, and it is for one thread
        compressor = _local.compressor = zstandard.ZstdCompressor(level=_LEVEL)
    try:
        return bytes(compressor.compress(_encoder.encode(item)))
    except (OverflowError, RecursionError, TypeError) as error:
        raise ValueError(f"{item.id} cannot be packed: {error}") from None


def unpack(data: bytes) -> Interaction:
    """Return the interaction that `pack` packed. Raises ValueError if `data` is not one."""
    try:
        return _decoder.decode(zstandard.ZstdDecompressor().decompress(data))
    except zstandard.ZstdError as error:
        raise ValueError(f"not a packed interaction: {error}") from None


def unpacked_size(head: bytes) -> int:
    """Return the size of a packed interaction as msgpack, from its first HEAD_BYTES."""
    return zstandard.frame_content_size(head)
