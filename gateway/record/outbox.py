"""Where answers go while the store is away: a spool on this machine's disk. `drain.py` brings them to the store once it is back.

One thread does all disk work, so the event loop never waits for a disk. Room is kept for every answer that runs, in files that are
allocated already: a disk that fills up meanwhile does not take it away.
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
"""Bytes allocated at a time."""
FULL_SECONDS = 1.0
"""Seconds a disk that had no room is not asked again."""
ROOM_SECONDS = 1.0
"""Seconds a request waits for a disk to give room, while the store is away."""
CLOSE_SECONDS = 5.0

log = logging.getLogger(__name__)


class Outbox:
    """This gateway's spool. Make it inside the event loop; `start`, and `close` in the end."""

    def __init__(self, data: Path, config: OutboxConfig, metrics: Metrics) -> None:
        self.root = data / FOLDER
        self.away = False
        """Whether the store failed last."""
        self.spool: Spool | None = None
        self.waiting = 0
        """Bytes in the spool that are not in the store yet."""
        self.news = asyncio.Event()
        """Set when there is something to do for who drains."""
        self._most = config.max_spool_mb * MIB
        self._segment = min(SEGMENT, self._most // 4)
        self._metrics = metrics
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="outbox")
        self._free = self._reserved = 0
        self._growing: asyncio.Task[None] | None = None
        self._full_until = 0.0
        self._late: set[asyncio.Future[None]] = set()

    async def start(self) -> None:
        """Allocates the first room. A disk that has none is asked again later."""
        self._grow()
        await self._grown()

    async def reserve(self, size: int) -> int:
        """Keeps room for an answer that begins; the bytes kept, 0 if there are none. Only while the store is away it waits for the disk."""
        size = min(size, self._segment)
        deadline = monotonic() + ROOM_SECONDS
        while not self._fits(size):
            self._grow()
            if not self.away or self._growing is None or monotonic() > deadline:
                return 0
            await self._grown()
        self._reserved += size
        if not self._fits(self._segment // 2):
            self._grow()
        return size

    def release(self, size: int) -> None:
        """Gives back what `reserve` kept."""
        self._reserved -= size

    async def keep(self, items: Sequence[Interaction]) -> int:
        """Writes `items` to the spool; how many, from the first on, are on disk. OSError: none is. ValueError: one cannot be packed."""
        kept = await self.do(self._append, items)
        self._metrics.spooled.inc(kept)
        self.news.set()
        return kept

    def failed(self) -> None:
        """The store did not take a write: until it takes one again, nobody waits for it."""
        self.away = True
        self.news.set()

    def late(self, put: asyncio.Future[None]) -> None:
        """The store is still busy with `put`, whose answers go to the spool meanwhile."""
        self.failed()
        self._late.add(put)
        put.add_done_callback(self._came)

    async def trim(self) -> None:
        """Gives the disk back what a burst took."""
        keep = self._reserved + self._segment
        if self.spool is not None and self._free >= keep + self._segment:
            self._free = keep  # at once: what goes must not be promised meanwhile
            await self.do(self.spool.trim, keep)

    async def do(self, work: Callable[..., T], *args: object) -> T:
        """What `work` returns, done by the thread that has the disk."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._work, work, args)

    async def close(self) -> None:
        """Ends what is under way. What waits stays on disk, for the next gateway."""
        for put in self._late:
            put.cancel()
        await self._grown()
        if self.spool is not None:
            await asyncio.wait({asyncio.ensure_future(self.do(self.spool.close))}, timeout=CLOSE_SECONDS)
        self._thread.shutdown(wait=False)

    def _fits(self, size: int) -> bool:
        return self._reserved + size <= self._free

    def _grow(self) -> None:
        if self._growing is None and monotonic() >= self._full_until:
            self._growing = asyncio.create_task(self._allocate())

    async def _grown(self) -> None:
        if self._growing is not None:
            await asyncio.wait({self._growing}, timeout=ROOM_SECONDS)

    async def _allocate(self) -> None:
        try:
            await self.do(self._more)
        except OSError as error:
            if not self._full_until:
                log.error("the spool gets no room, so answers may go unrecorded while the store is away: %s", error)
            self._full_until = monotonic() + FULL_SECONDS
        else:
            self._full_until = 0.0
        finally:
            self._growing = None

    def _more(self) -> None:
        self._opened().grow()

    def _append(self, items: Sequence[Interaction]) -> int:
        return self._opened().append([pack(item) for item in items])

    def _opened(self) -> Spool:
        if self.spool is None:
            self.spool = Spool.create(self.root, self._segment, self._most)
        return self.spool

    def _work(self, work: Callable[..., T], args: tuple[object, ...]) -> T:
        try:
            return work(*args)
        finally:
            if self.spool is not None:
                self._free, self.waiting = self.spool.free, self.spool.waiting

    def _came(self, put: asyncio.Future[None]) -> None:
        self._late.discard(put)
        if not put.cancelled() and put.exception() is None:
            self.away = False
            self.news.set()
