"""A wall clock that jumps, for processes under test: with this folder on PYTHONPATH, `time.time` adds the seconds in the file that
JUMPING_CLOCK names. The monotonic clock stays as it is.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from pathlib import Path

_FORM = struct.Struct("d")


def _install(file: Path) -> None:
    with file.open("rb") as opened:
        added = mmap.mmap(opened.fileno(), _FORM.size, access=mmap.ACCESS_READ)
    real, real_ns = time.time, time.time_ns
    time.time = lambda: real() + _FORM.unpack_from(added)[0]
    time.time_ns = lambda: real_ns() + int(_FORM.unpack_from(added)[0] * 1e9)


def jump(file: Path, seconds: float) -> None:
    """Sets what is added."""
    with file.open("r+b" if file.exists() else "wb") as opened:
        opened.write(_FORM.pack(seconds))


if "JUMPING_CLOCK" in os.environ:
    _install(Path(os.environ["JUMPING_CLOCK"]))
