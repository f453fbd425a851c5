"""Spools: folders of segments under DIR/spool, one for each gateway, where answers wait while the store is unavailable.

The owner holds a lock that the kernel releases when the process ends. A spool without an owner is that of a dead gateway, and
whoever gets its lock drains it. Every method blocks. A spool is used by one thread.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ratchet import names
from ratchet.buffer.spool.segments import OVERHEAD, Segment, Slice
from ratchet.durable import sync

FOLDER = "spool"
"""Its name in the data directory."""
LOCK = "lock"
REFUSED = "refused"
"""The folder of answers that the store refused permanently. Renamed, it is a spool like any other, and is tried again."""
REFUSED_BYTES = 64 * 2**20


class Survey(NamedTuple):
    """The contents of all spools: answers that wait, their bytes, and answers that were refused."""

    waiting: int
    bytes: int
    refused: int


class Spool:
    """One spool that this process holds."""

    def __init__(self, folder: Path, lock: int, written: Sequence[Segment] = (), *, segment: int = 0, most: int = 0) -> None:
        self.folder = folder
        self._lock = lock
        self._size = segment
        self._most = most
        self._number = 0
        self._written = deque(written)
        """Segments that are full, oldest first."""
        self._open: deque[Segment] = deque()
        """Segments with room; the first is being written."""
        self._read: tuple[Segment, int] | None = None
        """Where `read` ended."""

    @classmethod
    def create(cls, root: Path, segment: int, most: int) -> Spool:
        """Create an empty spool. It grows by segments of `segment` bytes until all under `root` take `most` bytes. Raises OSError."""
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        while True:
            folder = root / names.mint("gw-")
            folder.mkdir(mode=0o700)
            # A process that looks for dead spools may have locked it first, and will remove it.
            if (lock := _lock(folder)) is not None:
                sync(root)
                return cls(folder, lock, segment=segment, most=most)

    @classmethod
    def adopt(cls, root: Path) -> Spool | None:
        """Take over the spool of a dead gateway under `root`, if there is one. Raises OSError."""
        for folder in sorted(root.iterdir()) if root.is_dir() else []:
            if folder.name != REFUSED and _is_spool(folder) and (lock := _lock(folder)) is not None:
                return cls(folder, lock, Segment.found(folder))
        return None

    @property
    def free(self) -> int:
        """Allocated bytes that are not written yet, heads included."""
        return sum(segment.room for segment in self._open)

    @property
    def waiting(self) -> int:
        """Bytes that are not drained yet."""
        return sum(segment.end - segment.start for segment in (*self._written, *self._open))

    def grow(self, size: int = 0) -> Segment:
        """Allocate another segment, of `size` bytes if that is more than usual. Raises OSError if the disk or the limit is full."""
        size = max(size, self._size)
        if _size(self.folder.parent) + size > self._most:
            raise OSError(errno.EDQUOT, "max_spool_mb is reached")
        self._number += 1
        self._open.append(Segment.create(self.folder, self._number, size))
        return self._open[-1]

    def trim(self, keep: int) -> None:
        """Remove segments that are not written to, as long as `keep` bytes stay free."""
        while len(self._open) > 1 and not self._open[-1].end and self.free - self._open[-1].size >= keep:
            self._open.pop().remove()

    def append(self, records: Sequence[bytes]) -> int:
        """Write `records`, and allocate segments as needed. Return how many, from the first, are on disk. Raises OSError if none is."""
        done = 0
        while done < len(records):
            try:
                done += self._write(records[done:])
            except OSError:
                if not done:
                    raise
                break
        return done

    def read(self, room: int) -> Slice:
        """Read the oldest records, as `Segment.read` does; the same again until `drained`."""
        damaged = 0
        for segment in (*self._written, *self._open):
            found = segment.read(segment.start, room)
            damaged += found.damaged
            if found.records:
                self._read = segment, found.offset
                return Slice(found.records, found.offset, damaged)
            segment.start = segment.end
        self._sweep()
        return Slice([], 0, damaged)

    def drained(self) -> None:
        """Remove what was last read, since the store has it. Raises OSError."""
        if self._read is not None:
            segment, offset = self._read
            segment.start = offset
            self._read = None
            self._sweep()

    def close(self) -> None:
        """Unlock the spool, and delete it if nothing waits in it. Raises OSError."""
        empty = not self.waiting
        try:
            for segment in (*self._written, *self._open):
                if empty:
                    segment.remove()
                else:
                    segment.close()
            if empty:
                (self.folder / LOCK).unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # a file that is not ours is in it
                    self.folder.rmdir()
        finally:
            os.close(self._lock)

    def _write(self, records: Sequence[bytes]) -> int:
        """Write as many as fit into one segment."""
        segment = self._fitting(OVERHEAD + len(records[0]))
        count, room = 0, segment.room
        while count < len(records) and (room := room - OVERHEAD - len(records[count])) >= 0:
            count += 1
        try:
            segment.append(records[:count])
        except OSError:
            self._written.append(self._open.popleft())
            raise
        return count

    def _fitting(self, size: int) -> Segment:
        """Return the first segment with `size` bytes of room, and move it to the front."""
        found = next((segment for segment in self._open if segment.room >= size), None) or self.grow(size)
        if found is not self._open[0]:
            self._open.remove(found)
            if self._open[0].end:
                self._written.append(self._open.popleft())
            self._open.appendleft(found)
        return found

    def _sweep(self) -> None:
        """Remove drained segments. The one being written is emptied instead, since its room may be reserved."""
        while self._written and self._written[0].start >= self._written[0].end:
            self._written.popleft().remove()
        if not self._written and self._open and self._open[0].start >= self._open[0].end > 0:
            self._open[0].clear()


def set_aside(root: Path, record: bytes) -> bool:
    """Keep an answer that the store refuses permanently. Return False, and discard it, once REFUSED_BYTES are kept. Raises OSError."""
    folder = root / REFUSED
    folder.mkdir(mode=0o700, exist_ok=True)
    size = OVERHEAD + len(record)
    kept = list(folder.iterdir())
    if sum(path.stat().st_size for path in kept) + size > REFUSED_BYTES:
        return False
    segment = Segment.create(folder, len(kept) + 1, size)
    try:
        segment.append([record])
    finally:
        segment.close()
    return True


def survey(root: Path) -> Survey:
    """Count what is in all spools. An answer that is being drained at the moment may be counted as waiting. Raises OSError."""
    waiting = size = refused = 0
    for folder in root.iterdir() if root.is_dir() else []:
        for segment in Segment.found(folder) if folder.is_dir() else []:
            count, used = segment.used()
            segment.close()
            if folder.name == REFUSED:
                refused += count
            else:
                waiting, size = waiting + count, size + used
    return Survey(waiting, size, refused)


def _size(root: Path) -> int:
    total = 0
    for path in root.glob("*/*.seg"):
        with contextlib.suppress(FileNotFoundError):  # drained meanwhile
            total += path.stat().st_size
    return total


def _is_spool(folder: Path) -> bool:
    """Return whether the folder contains segments, or nothing but its lock."""
    try:
        inside = {path.name for path in folder.iterdir()} - {LOCK}
    except (FileNotFoundError, NotADirectoryError):
        return False
    return not inside or any(name.endswith(".seg") for name in inside)


def _lock(folder: Path) -> int | None:
    """Lock the folder. Return None if it is locked already or was removed."""
    path = folder / LOCK
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileNotFoundError:
        return None
    with contextlib.suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.stat().st_ino == os.fstat(lock).st_ino:
            return lock
    os.close(lock)
    return None
