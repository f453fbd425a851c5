"""Read what an engine answered."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from ratchet.errors import EngineBroken

T = TypeVar("T")


def decode(data: bytes, form: type[T]) -> T:
    """`data` (JSON) as a `form`. EngineBroken: it is malformed, or of another form."""
    try:
        return msgspec.json.decode(data, type=form)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EngineBroken(f"the engine's answer is of another form: {error}") from None
