"""Segment files: packed interactions one after the other, each with its length and a checksum, found again after any crash.

A record is a head (mark, length, crc32) and its bytes. The mark is random, the same in one file and part of its name: nothing a
client sends can pass for a record. A file is allocated ahead, so that a full disk cannot refuse what was promised: what follows
the last record is zeros, or the torn end of a write.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ratchet.durable import sync

HEAD = struct.Struct("<8sII")
OVERHEAD = HEAD.size
"""Bytes a record takes besides its own."""
_NAME = re.compile(r"(\d{8})-([0-9a-f]{16})\.seg")


class Slice(NamedTuple):
    """Records read from a segment, where to continue, and how many damaged or torn parts were skipped."""

    records: list[bytes]
    offset: int
    damaged: int


class Segment:
    """One file. Records lie between `start` and `end`; `size` is what is allocated. Every method blocks. OSError."""

    def __init__(self, path: Path, file: int, mark: bytes, size: int, end: int) -> None:
        self.path = path
        self.size = size
        self.start = 0
        self.end = end
        self._file = file
        self._mark = mark

    @classmethod
    def create(cls, folder: Path, number: int, size: int) -> Segment:
        """Create a segment and allocate its `size` bytes on disk, so that no write into them fails for lack of space."""
        mark = secrets.token_bytes(8)
        path = folder / f"{number:08d}-{mark.hex()}.seg"
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            if size:
                os.posix_fallocate(file, 0, size)
            os.fsync(file)
            sync(folder)
        except OSError:
            os.close(file)
            path.unlink()
            raise
        return cls(path, file, mark, size, 0)

    @classmethod
    def found(cls, folder: Path) -> list[Segment]:
        """Open the segments that another process wrote in `folder`, oldest first."""
        segments = []
        for path in sorted(folder.iterdir()):
            if (name := _NAME.fullmatch(path.name)) is not None:
                with contextlib.suppress(FileNotFoundError):  # drained meanwhile
                    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
                    size = os.fstat(file).st_size
                    segments.append(cls(path, file, bytes.fromhex(name[2]), size, size))
        return segments

    @property
    def room(self) -> int:
        """Bytes that are free, heads included."""
        return self.size - self.end

    def append(self, records: Sequence[bytes]) -> None:
        """Append `records` durably. After an error the segment must not be written again."""
        data = memoryview(b"".join(part for record in records for part in (self._head(record), record)))
        at = self.end
        while data:
            written = os.pwrite(self._file, data, at)
            at, data = at + written, data[written:]
        os.fdatasync(self._file)
        self.end = at

    def read(self, offset: int, room: int) -> Slice:
        """Read whole records from `offset`: at least one if there is one, until they fill `room` bytes.

        Damage before a whole record is skipped; damage with no whole record after it is the end.
        """
        records: list[bytes] = []
        damaged = 0
        while offset < self.end and room > 0:
            data = self._record(offset)
            if data is None:
                found = self._next(offset)
                if found is None:
                    torn = os.pread(self._file, len(self._mark), offset) == self._mark
                    return Slice(records, self.end, damaged + torn)
                offset, damaged = found, damaged + 1
                continue
            records.append(data)
            offset += OVERHEAD + len(data)
            room -= len(data)
        return Slice(records, offset, damaged)

    def used(self) -> tuple[int, int]:
        """Return the number of records at the beginning and their bytes, from their heads alone."""
        offset = count = 0
        while (length := self._length(offset)) is not None:
            offset, count = offset + OVERHEAD + length, count + 1
        return count, offset

    def clear(self) -> None:
        """Empty the segment with zeros. Its bytes stay allocated."""
        os.pwrite(self._file, bytes(self.end), 0)
        os.fdatasync(self._file)
        self.start = self.end = 0

    def close(self) -> None:
        os.close(self._file)

    def remove(self) -> None:
        self.close()
        self.path.unlink(missing_ok=True)

    def _head(self, data: bytes) -> bytes:
        return HEAD.pack(self._mark, len(data), _checksum(data))

    def _length(self, offset: int) -> int | None:
        """Return the length in the head at `offset`, or None if there is no head. A length of 0 is none: zeros after a torn mark."""
        head = os.pread(self._file, OVERHEAD, offset)
        if len(head) < OVERHEAD:
            return None
        mark, length, _ = HEAD.unpack(head)
        return int(length) if mark == self._mark and 0 < length <= self.end - offset - OVERHEAD else None

    def _record(self, offset: int) -> bytes | None:
        """Return the record that begins at `offset`, or None if there is none or it is damaged."""
        length = self._length(offset)
        if length is None:
            return None
        whole = os.pread(self._file, OVERHEAD + length, offset)
        data = whole[OVERHEAD:]
        return data if whole[:OVERHEAD] == self._head(data) else None

    def _next(self, offset: int) -> int | None:
        """Return where the next whole record after `offset` begins."""
        rest = os.pread(self._file, self.end - offset, offset)
        at = rest.find(self._mark, 1)
        while at >= 0 and self._record(offset + at) is None:
            at = rest.find(self._mark, at + 1)
        return offset + at if at >= 0 else None


def _checksum(data: bytes) -> int:
    """Return a checksum that covers the length too, so that a wrong length is detected."""
    return zlib.crc32(data, len(data))
