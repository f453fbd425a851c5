"""Spools: folders of segments in DIR/spool, one for each gateway, that hold answers while the store is unavailable.

The owner holds a file lock, which the kernel releases when the process ends. An unlocked spool belonged to a gateway that died:
the next process that acquires its lock drains it. Every method blocks. A spool is not thread-safe.
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
"""Name of the folder in the data directory."""
LOCK = "lock"
REFUSED = "refused"
"""Folder of the answers that the store refused for good. Rename it to have it drained again like any other spool."""
REFUSED_BYTES = 64 * 2**20


class Survey(NamedTuple):
    """The content of all spools: answers that wait, their size in bytes, and answers that the store refused."""

    waiting: int
    bytes: int
    refused: int


class Spool:
    """A spool that this process holds the lock of."""

    def __init__(self, folder: Path, lock: int, written: Sequence[Segment] = (), *, segment: int = 0, most: int = 0) -> None:
        self.folder = folder
        self._lock = lock
        self._size = segment
        self._most = most
        self._number = 0
        self._written = deque(written)
        """Segments that nothing more is appended to, the oldest first."""
        self._open: deque[Segment] = deque()
        """Segments with room; the first is being written."""
        self._read: tuple[Segment, int] | None = None
        """Where `read` ended."""

    @classmethod
    def create(cls, root: Path, segment: int, most: int) -> Spool:
        """Create an empty spool. It grows by segments of `segment` bytes until all spools in `root` take `most` bytes. Raises OSError."""
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        while True:
            folder = root / names.mint("gw-")
            folder.mkdir(mode=0o700)
            # Another process that looks for abandoned spools may have locked it first; then that one removes it.
            if (lock := _lock(folder)) is not None:
                sync(root)
                return cls(folder, lock, segment=segment, most=most)

    @classmethod
    def adopt(cls, root: Path) -> Spool | None:
        """Take over a spool in `root` whose gateway died, if there is one. Raises OSError."""
        for folder in sorted(root.iterdir()) if root.is_dir() else []:
            if folder.name != REFUSED and _is_spool(folder) and (lock := _lock(folder)) is not None:
                return cls(folder, lock, Segment.found(folder))
        return None

    @property
    def free(self) -> int:
        """Allocated bytes that are not written yet, headers included."""
        return sum(segment.room for segment in self._open)

    @property
    def waiting(self) -> int:
        """Bytes that are not drained yet."""
        return sum(segment.end - segment.start for segment in (*self._written, *self._open))

    def grow(self, size: int = 0) -> Segment:
        """Allocate another segment, of at least `size` bytes. Raises OSError if the disk is full or the limit of all spools is reached."""
        size = max(size, self._size)
        if _size(self.folder.parent) + size > self._most:
            raise OSError(errno.EDQUOT, "max_spool_mb is reached")
        self._number += 1
        self._open.append(Segment.create(self.folder, self._number, size))
        return self._open[-1]

    def trim(self, keep: int) -> None:
        """Remove unused segments, as long as `keep` bytes stay free."""
        while len(self._open) > 1 and not self._open[-1].end and self.free - self._open[-1].size >= keep:
            self._open.pop().remove()

    def append(self, records: Sequence[bytes]) -> int:
        """Append `records`, growing if necessary. Return how many of the first ones are on disk. Raises OSError if none is."""
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
        """Return the oldest records, as `Segment.read` does. Returns the same ones until `drained` is called."""
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
        """Drop the records that were last read, which are now in the store. Raises OSError."""
        if self._read is not None:
            segment, offset = self._read
            segment.start = offset
            self._read = None
            self._sweep()

    def close(self) -> None:
        """Release the lock, and delete the spool if nothing waits in it. Raises OSError."""
        empty = not self.waiting
        try:
            for segment in (*self._written, *self._open):
                if empty:
                    segment.remove()
                else:
                    segment.close()
            if empty:
                (self.folder / LOCK).unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # somebody put a file there
                    self.folder.rmdir()
        finally:
            os.close(self._lock)

    def _write(self, records: Sequence[bytes]) -> int:
        """Write as many records as fit into one segment. Return their number."""
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
        """Find or allocate a segment with `size` bytes of room and put it first."""
        found = next((segment for segment in self._open if segment.room >= size), None) or self.grow(size)
        if found is not self._open[0]:
            self._open.remove(found)
            if self._open[0].end:
                self._written.append(self._open.popleft())
            self._open.appendleft(found)
        return found

    def _sweep(self) -> None:
        """Remove drained segments. The one being written is emptied instead, because its room may be reserved."""
        while self._written and self._written[0].start >= self._written[0].end:
            self._written.popleft().remove()
        if not self._written and self._open and self._open[0].start >= self._open[0].end > 0:
            self._open[0].clear()


def set_aside(root: Path, record: bytes) -> bool:
    """Keep a record that the store refuses for good. Return False, and drop it, once REFUSED_BYTES are kept. Raises OSError."""
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
    """Count the content of all spools, abandoned ones included. An answer being drained may count as waiting. Raises OSError."""
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
        with contextlib.suppress(FileNotFoundError):  # drained in the meantime
            total += path.stat().st_size
    return total


def _is_spool(folder: Path) -> bool:
    """Whether the folder holds segments, or nothing but its lock."""
    try:
        inside = {path.name for path in folder.iterdir()} - {LOCK}
    except (FileNotFoundError, NotADirectoryError):
        return False
    return not inside or any(name.endswith(".seg") for name in inside)


def _lock(folder: Path) -> int | None:
    """Acquire the lock of the folder. None if another process holds it or the folder was removed."""
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
