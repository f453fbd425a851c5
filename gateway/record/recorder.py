"""Write finished answers to the store, many in one round trip, and tell each request when its own is durable.

The store gets `outbox.wait_ms` for a write. Answers that it has not taken by then go to the spool (`outbox.py`).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from gateway.record.outbox import Outbox
from gateway.telemetry.metrics import Metrics
from ratchet.buffer.interactions import Interactions
from ratchet.clock import monotonic
from ratchet.config import GatewayConfig
from ratchet.errors import StoreError, StoreUnavailable
from ratchet.types import Interaction

GROUP = 64
"""Answers in one write to the store."""
SPOOL_GROUP = 1024
"""Answers in one write to the spool, which costs an fsync."""
MAX_QUEUE = 4096
RETRY_SECONDS = 0.1
NEXT_GROUP_SHARE = 0.2
"""Share of `wait_ms` that the store gets for a group which had to wait for the one before."""
TOKEN_BYTES = 20
"""Bytes of a token in a record: id, log-prob and text, incompressible. Measured of ordinary ones: 6.6."""
RESERVED_TOKENS = 2048
"""Tokens that are reserved for each choice. A longer answer may find the spool full."""
FRAME_BYTES = 2048
"""Bytes of a record beside its messages and tokens."""

log = logging.getLogger(__name__)


class _Entry(NamedTuple):
    interaction: Interaction
    store_until: float
    """When the store's time for it is over."""
    deadline: float
    """When it counts as not recorded."""
    done: asyncio.Future[None]


class Reservation(NamedTuple):
    """Whether an answer will be recorded, as was decided before its first byte, and the bytes that the spool reserves for it."""

    promised: bool
    size: int


NOTHING_TO_RECORD = Reservation(True, 0)
"""For an answer that is not to be recorded."""


def reservation_size(body: int, choices: int, tokens: int | None) -> int:
    """Bytes to reserve for an answer to a request of `body` bytes: twice its record, so that the ends of segments may stay empty."""
    return 2 * (body + FRAME_BYTES + choices * TOKEN_BYTES * min(tokens or RESERVED_TOKENS, RESERVED_TOKENS))


class Recorder:
    """A bounded queue and the task that writes it."""

    def __init__(self, interactions: Interactions, outbox: Outbox, metrics: Metrics, config: GatewayConfig) -> None:
        self._interactions = interactions
        self._outbox = outbox
        self._metrics = metrics
        self._seconds = config.record_seconds
        self._store_seconds = config.outbox.wait_ms / 1000 * (1 - NEXT_GROUP_SHARE)
        self._next_group_seconds = config.outbox.wait_ms / 1000 * NEXT_GROUP_SHARE
        self._queue: deque[_Entry] = deque()
        self._filled = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def waiting(self) -> int:
        """Answers in the queue."""
        return len(self._queue)

    async def reserve(self, size: int) -> Reservation:
        """Reserve `size` bytes for an answer that begins. It is not promised where neither the store nor the spool would take it."""
        reserved = await self._outbox.reserve(size)
        reservation = Reservation(reserved > 0 or not self._outbox.store_unavailable, reserved)
        if not reservation.promised:
            self._metrics.unrecorded.inc()
        return reservation

    def release(self, reservation: Reservation) -> None:
        """Give back what was reserved, once the answer is over."""
        self._outbox.release(reservation.size)

    def submit(self, interaction: Interaction) -> asyncio.Future[None]:
        """Put an answer in the queue. The future is done once it is durable, or has StoreUnavailable after `record_seconds`."""
        now = monotonic()
        entry = _Entry(interaction, now + self._store_seconds, now + self._seconds, asyncio.get_running_loop().create_future())
        # Nobody awaits an answer that the client did not see whole; its future must not warn.
        entry.done.add_done_callback(_retrieve_exception)
        if len(self._queue) >= MAX_QUEUE:
            self._fail(entry, StoreUnavailable("too many answers wait to be recorded"))
            return entry.done
        self._queue.append(entry)
        self._empty.clear()
        self._filled.set()
        return entry.done

    async def write(self, interaction: Interaction) -> None:
        """Wait until an answer is durable. StoreUnavailable if it is not within `record_seconds`."""
        await self.submit(interaction)

    async def flush(self, seconds: float) -> bool:
        """Wait until the queue is empty, at most `seconds`. False if it is not."""
        try:
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True

    async def run(self) -> None:
        """Write the queue for ever."""
        while True:
            await self._filled.wait()
            if not self._queue:
                self._filled.clear()
                self._empty.set()
            elif self._outbox.store_unavailable:
                await self._spool(self._take(SPOOL_GROUP))
            else:
                await self._put(self._take(GROUP))

    def _take(self, most: int) -> list[_Entry]:
        return [self._queue.popleft() for _ in range(min(most, len(self._queue)))]

    async def _put(self, group: list[_Entry]) -> None:
        """Write a group to the store, or to the spool if the store does not take it in time."""
        put = asyncio.create_task(self._store(group))
        try:
            await _within(put, max(self._next_group_seconds, group[0].store_until - monotonic()))
        except asyncio.CancelledError:
            put.cancel()
            raise
        if not put.done():
            self._outbox.store_is_late(put)
        elif isinstance(put.exception(), StoreError):
            self._outbox.store_failed()
        elif isinstance(put.exception(), ValueError):
            await self._one_by_one(group, self._put)
            return
        else:
            put.result()
            self._written(group)
            return
        await self._spool(group)

    async def _store(self, group: list[_Entry]) -> None:
        began = monotonic()
        await self._interactions.put([entry.interaction for entry in group])
        self._metrics.recorder_write.observe(monotonic() - began)

    async def _spool(self, group: list[_Entry]) -> None:
        spooling = asyncio.ensure_future(self._outbox.append([entry.interaction for entry in group]))
        spooling.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.wait({spooling}, timeout=max(RETRY_SECONDS, group[-1].deadline - monotonic()))
        spooled = 0
        try:
            spooled = spooling.result() if spooling.done() else 0
        except ValueError:
            await self._one_by_one(group, self._spool)
            return
        except OSError as error:
            log.error("answers could not be spooled: %s", error)
        self._written(group[:spooled])
        if spooled < len(group):
            self._requeue(group[spooled:])
            await asyncio.sleep(RETRY_SECONDS)

    async def _one_by_one(self, group: list[_Entry], write: Callable[[list[_Entry]], Awaitable[None]]) -> None:
        """Write each entry by itself, since one of them cannot be packed and must not take the others with it."""
        if len(group) == 1:
            log.error("the answer %s cannot be recorded", group[0].interaction.id)
            self._fail(group[0], StoreUnavailable("the answer cannot be recorded"))
            return
        for entry in group:
            await write([entry])

    def _requeue(self, group: list[_Entry]) -> None:
        """Put entries back at the front of the queue, except for those whose time is over."""
        now = monotonic()
        for entry in reversed(group):
            if entry.deadline > now:
                self._queue.appendleft(entry)
            else:
                self._fail(entry, StoreUnavailable("the answer could not be recorded in time"))

    def _written(self, group: Sequence[_Entry]) -> None:
        for entry in group:
            self._metrics.recorded.labels(entry.interaction.status).inc()
            if entry.interaction.untrainable:
                self._metrics.untrainable.labels(entry.interaction.untrainable).inc()
            if not entry.done.done():
                entry.done.set_result(None)

    def _fail(self, entry: _Entry, error: StoreUnavailable) -> None:
        self._metrics.recorded.labels("lost").inc()
        if not entry.done.done():
            entry.done.set_exception(error)


def _retrieve_exception(done: asyncio.Future[None]) -> None:
    if not done.cancelled():
        done.exception()


async def _within(task: asyncio.Task[None], seconds: float) -> None:
    """Wait until `task` is done or the time is over, as `asyncio.wait` does, at a third of its cost."""
    loop = asyncio.get_running_loop()
    woken: asyncio.Future[None] = loop.create_future()

    def wake(_: object = None) -> None:
        if not woken.done():
            woken.set_result(None)

    task.add_done_callback(wake)
    timer = loop.call_later(seconds, wake)
    try:
        await woken
    finally:
        timer.cancel()
