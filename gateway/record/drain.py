"""Bring spooled answers to the store: first those of gateways that died, then this one's own, the oldest first."""

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
"""Bytes of records in one write to the store."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 1.0
"""Seconds between two attempts to use an unavailable store."""

log = logging.getLogger(__name__)


class _Record(NamedTuple):
    """A record of the spool. `call` writes it to the store; None if it cannot be stored, for the reason `why`."""

    data: bytes
    call: Call | None
    why: str = ""


class Drain:
    """Drains the spools while the store is available, and tries the store while it is not."""

    def __init__(self, outbox: Outbox, interactions: Interactions, metrics: Metrics, adopt_seconds: float) -> None:
        self._outbox = outbox
        self._interactions = interactions
        self._metrics = metrics
        self._adopt_seconds = adopt_seconds
        """Seconds between two searches for spools of gateways that died."""
        self._search_at = 0.0
        self._adopted: Spool | None = None
        self._group: list[bytes] = []
        """Records that were read and are not in the store yet."""
        self._drained_all = asyncio.Event()

    async def run(self) -> None:
        """Drain for ever."""
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            self._outbox.changed.clear()
            try:
                busy = await self._step_or_probe()
            except (StoreError, OSError) as error:
                self._outbox.store_unavailable = isinstance(error, StoreError)
                if not backoff.failures:
                    log.warning("answers are kept in the spool meanwhile: %s", error)
                await asyncio.sleep(backoff.pause())
                continue
            if backoff.failures:
                log.info("the store takes writes again")
            backoff.reset()
            if not busy:
                await self._wait()

    async def wait_drained(self, seconds: float) -> bool:
        """Wait until all is drained, at most `seconds`, and not at all for an unavailable store. False if something remains."""
        deadline = monotonic() + seconds
        while self._outbox.waiting and not self._outbox.store_unavailable and monotonic() < deadline:
            self._drained_all.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._drained_all.wait(), deadline - monotonic())
        return not self._outbox.waiting

    async def close(self) -> None:
        """Release the spool that it adopted."""
        if self._adopted is not None:
            await asyncio.wait({asyncio.ensure_future(self._outbox.on_disk_thread(self._adopted.close))}, timeout=CLOSE_SECONDS)

    async def _step_or_probe(self) -> bool:
        """One step. An unavailable store is available again once it took a group, or an empty write if nothing waits."""
        if not self._outbox.store_unavailable:
            return await self._step()
        await self._interactions.writable()
        busy = await self._step()
        self._outbox.store_unavailable = False
        return busy

    async def _step(self) -> bool:
        """Drain one group, or search once for other spools. Returns whether there may be more to do. StoreError, OSError."""
        if self._adopted is None and not self._group and monotonic() >= self._search_at:
            await self._search()
        if self._adopted is not None:
            if not await self._drain_group(self._adopted):
                adopted, self._adopted = self._adopted, None
                await self._outbox.on_disk_thread(adopted.close)
            return True
        if self._outbox.waiting and self._outbox.spool is not None:
            return await self._drain_group(self._outbox.spool)
        return False

    async def _search(self) -> None:
        """Adopt the spool of a gateway that died."""
        self._adopted = await self._outbox.on_disk_thread(Spool.adopt, self._outbox.root)
        if self._adopted is None:
            self._search_at = monotonic() + self._adopt_seconds
        else:
            log.info("draining %s, which a gateway left", self._adopted.folder.name)

    async def _wait(self) -> None:
        """Wait until something may have to be drained, or until it is time to search again."""
        self._drained_all.set()
        await self._outbox.trim()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._outbox.changed.wait(), max(0.0, self._search_at - monotonic()))

    async def _drain_group(self, spool: Spool) -> bool:
        """Write the oldest group to the store. False if there is none. StoreError, OSError."""
        if not self._group:
            found = await self._outbox.on_disk_thread(spool.read, GROUP_BYTES)
            if found.damaged:
                log.error("%d damaged or unfinished records were passed over in the spool", found.damaged)
                self._metrics.set_aside.labels("damaged").inc(found.damaged)
            self._group = found.records
        if not self._group:
            return False
        await self._put(await self._outbox.on_disk_thread(_prepared, self._group))
        self._metrics.drained.inc(len(self._group))
        self._group = []
        await self._outbox.on_disk_thread(spool.drained)
        return True

    async def _put(self, records: list[_Record]) -> None:
        refused = [record for record in records if record.call is None]
        storable = [record for record in records if record.call is not None]
        try:
            await self._interactions.put_packed([record.call for record in storable if record.call is not None])
        except StoreUnavailable:
            raise
        except StoreError:
            refused += [refusal for record in storable if (refusal := await self._refusal(record)) is not None]
        for record in refused:
            await self._set_aside(record)

    async def _refusal(self, record: _Record) -> _Record | None:
        """Write a record by itself. Returns it with the reason if the store refuses it but takes other writes."""
        try:
            await self._interactions.put_packed([record.call] if record.call is not None else [])
        except StoreUnavailable:
            raise
        except StoreError as error:
            await self._interactions.writable()
            return record._replace(why=str(error))
        return None

    async def _set_aside(self, record: _Record) -> None:
        kept = await self._outbox.on_disk_thread(set_aside, self._outbox.root, record.data)
        self._metrics.set_aside.labels("refused" if kept else "dropped").inc()
        log.error("an answer can never be stored (%s): it is %s", record.why, "in spool/refused" if kept else "lost, spool/refused is full")


def _prepared(group: list[bytes]) -> list[_Record]:
    return [_record(data) for data in group]


def _record(data: bytes) -> _Record:
    try:
        return _Record(data, packed(data))
    except ValueError as error:
        return _Record(data, None, str(error))
