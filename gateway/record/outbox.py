"""Keep answers in a spool on this machine's disk while the store is unavailable. `drain.py` brings them to the store later.

One thread does all disk work, so that the event loop never waits for a disk. Space is reserved for every running answer, in files that are
allocated already, so that a disk that fills up meanwhile does not matter.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from gateway.telemetry.metrics import Metrics
from ratchet.buffer.interactions import pack
from ratchet.buffer.spool import FOLDER, Spool
from ratchet.clock import monotonic
from ratchet.config import OutboxConfig
from ratchet.types import Interaction

T = TypeVar("T")
MIB = 2**20
SEGMENT = 4 * MIB
"""Bytes that are allocated at a time."""
FULL_SECONDS = 1.0
"""Seconds after which a disk that had no space is tried again."""
SPACE_SECONDS = 1.0
"""Seconds that a request waits for disk space while the store is unavailable."""
CLOSE_SECONDS = 5.0

log = logging.getLogger(__name__)


class Outbox:
    """The spool of one gateway process. Make it inside the event loop, `start` it, and `close` it in the end."""

    def __init__(self, data: Path, config: OutboxConfig, metrics: Metrics) -> None:
        self.root = data / FOLDER
        self.store_unavailable = False
        """Whether the last attempt to use the store failed."""
        self.spool: Spool | None = None
        self.waiting = 0
        """Bytes in the spool that are not in the store yet."""
        self.changed = asyncio.Event()
        """Set when there may be something to drain."""
        self._max_bytes = config.max_spool_mb * MIB
        self._segment = min(SEGMENT, self._max_bytes // 4)
        self._metrics = metrics
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="outbox")
        self._free = self._reserved = 0
        self._growing: asyncio.Task[None] | None = None
        self._full_until = 0.0
        self._late: set[asyncio.Future[None]] = set()
        """Writes that the store is still busy with."""

    async def start(self) -> None:
        """Allocate the first segment. A disk without space is tried again later."""
        self._grow()
        await self._wait_for_growth()

    async def reserve(self, size: int) -> int:
        """Reserve space for an answer that begins. Returns the bytes reserved, 0 if there is no space.

        It waits for the disk only while the store is unavailable.
        """
        size = min(size, self._segment)
        deadline = monotonic() + SPACE_SECONDS
        while not self._fits(size):
            self._grow()
            if not self.store_unavailable or self._growing is None or monotonic() > deadline:
                return 0
            await self._wait_for_growth()
        self._reserved += size
        if not self._fits(self._segment // 2):
            self._grow()
        return size

    def release(self, size: int) -> None:
        """Give back what `reserve` returned."""
        self._reserved -= size

    async def append(self, items: Sequence[Interaction]) -> int:
        """Write `items` to the spool. Returns how many of them, from the first on, are on disk.

        OSError: none is. ValueError: one of them cannot be packed.
        """
        count = await self.on_disk_thread(self._append, items)
        self._metrics.spooled.inc(count)
        self.changed.set()
        return count

    def store_failed(self) -> None:
        """The store did not take a write. Nobody waits for it any more, until it takes one again."""
        self.store_unavailable = True
        self.changed.set()

    def store_is_late(self, put: asyncio.Future[None]) -> None:
        """The store is still busy with `put`. Its answers go to the spool meanwhile."""
        self.store_failed()
        self._late.add(put)
        put.add_done_callback(self._late_write_done)

    async def trim(self) -> None:
        """Give space back to the disk after a burst."""
        keep = self._reserved + self._segment
        if self.spool is not None and self._free >= keep + self._segment:
            self._free = keep  # at once, so that nobody reserves meanwhile what goes
            await self.on_disk_thread(self.spool.trim, keep)

    async def on_disk_thread(self, work: Callable[..., T], *args: object) -> T:
        """Run `work` on the thread that does the disk work, and return its result."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._work, work, args)

    async def close(self) -> None:
        """End what is under way. What was not drained stays on disk, for the next gateway."""
        for put in self._late:
            put.cancel()
        await self._wait_for_growth()
        if self.spool is not None:
            await asyncio.wait({asyncio.ensure_future(self.on_disk_thread(self.spool.close))}, timeout=CLOSE_SECONDS)
        self._thread.shutdown(wait=False)

    def _fits(self, size: int) -> bool:
        return self._reserved + size <= self._free

    def _grow(self) -> None:
        if self._growing is None and monotonic() >= self._full_until:
            self._growing = asyncio.create_task(self._allocate())

    async def _wait_for_growth(self) -> None:
        if self._growing is not None:
            await asyncio.wait({self._growing}, timeout=SPACE_SECONDS)

    async def _allocate(self) -> None:
        try:
            await self.on_disk_thread(self._add_segment)
        except OSError as error:
            if not self._full_until:
                log.error("the spool gets no room, so answers may go unrecorded while the store is away: %s", error)
            self._full_until = monotonic() + FULL_SECONDS
        else:
            self._full_until = 0.0
        finally:
            self._growing = None

    # On the disk thread.

    def _add_segment(self) -> None:
        self._opened().grow()

    def _append(self, items: Sequence[Interaction]) -> int:
        return self._opened().append([pack(item) for item in items])

    def _opened(self) -> Spool:
        if self.spool is None:
            self.spool = Spool.create(self.root, self._segment, self._max_bytes)
        return self.spool

    def _work(self, work: Callable[..., T], args: tuple[object, ...]) -> T:
        try:
            return work(*args)
        finally:
            if self.spool is not None:
                self._free, self.waiting = self.spool.free, self.spool.waiting

    # On the event loop.

    def _late_write_done(self, put: asyncio.Future[None]) -> None:
        self._late.discard(put)
        if not put.cancelled() and put.exception() is None:
            self.store_unavailable = False
            self.changed.set()
