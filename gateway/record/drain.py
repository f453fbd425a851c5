"""Bring to the store what waits on disk: what dead gateways left, then what is this one's, oldest first."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import NamedTuple

from gateway.record.outbox import CLOSE_SECONDS, Outbox
from gateway.telemetry.metrics import Metrics
from ratchet.backoff import Backoff
from ratchet.buffer.interactions import Interactions, packed
from ratchet.buffer.link import Call
from ratchet.buffer.spool import Spool, set_aside
from ratchet.clock import monotonic
from ratchet.errors import StoreError, StoreUnavailable

GROUP_BYTES = 2**18
"""Bytes drained in one write."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 1.0
"""Seconds between two tries of a store that is away."""

log = logging.getLogger(__name__)


class _Record(NamedTuple):
    """A record, ready to be put, or why it never will be."""

    data: bytes
    ready: Call | None
    why: str = ""


class Drain:
    """Tries the store while it is away, and drains the spools while it is not."""

    def __init__(self, outbox: Outbox, interactions: Interactions, metrics: Metrics, look_every: float) -> None:
        self._outbox = outbox
        self._interactions = interactions
        self._metrics = metrics
        self._look_every = look_every
        """Seconds between two looks for what dead gateways left."""
        self._look_at = 0.0
        self._adopted: Spool | None = None
        self._group: list[bytes] = []
        """What was read and is not in the store yet."""
        self._settled = asyncio.Event()

    async def run(self) -> None:
        """Drains for ever."""
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            self._outbox.news.clear()
            try:
                busy = await self._try()
            except (StoreError, OSError) as error:
                self._outbox.away = isinstance(error, StoreError)
                if not backoff.failures:
                    log.warning("answers are kept in the spool meanwhile: %s", error)
                await asyncio.sleep(backoff.pause())
                continue
            if backoff.failures:
                log.info("the store takes writes again")
            backoff.reset()
            if not busy:
                await self._rest()

    async def settle(self, seconds: float) -> bool:
        """Waits up to `seconds` until all is drained, and not at all for a store that is away; whether it is."""
        deadline = monotonic() + seconds
        while self._outbox.waiting and not self._outbox.away and monotonic() < deadline:
            self._settled.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._settled.wait(), deadline - monotonic())
        return not self._outbox.waiting

    async def close(self) -> None:
        """Lets go of what it adopted."""
        if self._adopted is not None:
            await asyncio.wait({asyncio.ensure_future(self._outbox.do(self._adopted.close))}, timeout=CLOSE_SECONDS)

    async def _try(self) -> bool:
        """One step. A store that was away is back once it took what waits for it, or a write of nothing if nothing does."""
        if not self._outbox.away:
            return await self._step()
        await self._interactions.writable()
        busy = await self._step()
        self._outbox.away = False
        return busy

    async def _step(self) -> bool:
        """One group, or one look; whether there may be more to do at once. StoreError, OSError."""
        if self._adopted is None and not self._group and monotonic() >= self._look_at:
            await self._look()
        if self._adopted is not None:
            if not await self._drained(self._adopted):
                adopted, self._adopted = self._adopted, None
                await self._outbox.do(adopted.close)
            return True
        if self._outbox.waiting and self._outbox.spool is not None:
            return await self._drained(self._outbox.spool)
        return False

    async def _look(self) -> None:
        self._adopted = await self._outbox.do(Spool.adopt, self._outbox.root)
        if self._adopted is None:
            self._look_at = monotonic() + self._look_every
        else:
            log.info("draining %s, which a gateway left", self._adopted.folder.name)

    async def _rest(self) -> None:
        """Until there is news, or time to look."""
        self._settled.set()
        await self._outbox.trim()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._outbox.news.wait(), max(0.0, self._look_at - monotonic()))

    async def _drained(self, spool: Spool) -> bool:
        """Puts the oldest group; whether there was one. StoreError, OSError."""
        if not self._group:
            found = await self._outbox.do(spool.read, GROUP_BYTES)
            if found.damaged:
                log.error("%d damaged or unfinished records were passed over in the spool", found.damaged)
                self._metrics.set_aside.labels("damaged").inc(found.damaged)
            self._group = found.records
        if not self._group:
            return False
        await self._put(await self._outbox.do(_prepared, self._group))
        self._metrics.drained.inc(len(self._group))
        self._group = []
        await self._outbox.do(spool.drained)
        return True

    async def _put(self, records: list[_Record]) -> None:
        refused = [record for record in records if record.ready is None]
        ready = [record for record in records if record.ready is not None]
        try:
            await self._interactions.put_packed([record.ready for record in ready if record.ready is not None])
        except StoreUnavailable:
            raise
        except StoreError:
            refused += [refusal for record in ready if (refusal := await self._refusal(record)) is not None]
        for record in refused:
            await self._set_aside(record)

    async def _refusal(self, record: _Record) -> _Record | None:
        """Puts one by itself. If the store refuses it, and takes other writes, it is the record's fault: the record, with the reason."""
        try:
            await self._interactions.put_packed([record.ready] if record.ready is not None else [])
        except StoreUnavailable:
            raise
        except StoreError as error:
            await self._interactions.writable()
            return record._replace(why=str(error))
        return None

    async def _set_aside(self, record: _Record) -> None:
        kept = await self._outbox.do(set_aside, self._outbox.root, record.data)
        self._metrics.set_aside.labels("refused" if kept else "dropped").inc()
        log.error("an answer can never be stored (%s): it is %s", record.why, "in spool/refused" if kept else "lost, spool/refused is full")


def _prepared(group: list[bytes]) -> list[_Record]:
    return [_record(data) for data in group]


def _record(data: bytes) -> _Record:
    try:
        return _Record(data, packed(data))
    except ValueError as error:
        return _Record(data, None, str(error))
