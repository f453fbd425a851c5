"""Write finished answers to the store, many in one round trip; tell each request when its own is durable.

The store gets `outbox.wait_ms` for it. An answer it does not take in that time goes to the spool (`outbox.py`).
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
SPOOLED = 1024
"""Answers in one write to the spool, which costs an fsync."""
QUEUE = 4096
AGAIN_SECONDS = 0.1
FAIR = 0.2
"""Share of `wait_ms` that the store gets for a group which had to wait for the one before."""
TOKEN_BYTES = 20
"""Bytes of a token in a record: id, log-prob and text, incompressible (measured of usual ones: 6.6)."""
TOKENS = 2048
"""Tokens that room is kept for in each choice; a longer answer may find the spool full."""
FRAME_BYTES = 2048

log = logging.getLogger(__name__)


class _Item(NamedTuple):
    interaction: Interaction
    due: float
    """When the store's time is over."""
    deadline: float
    done: asyncio.Future[None]


class Reservation(NamedTuple):
    """Whether an answer will be recorded, as was decided before its first byte, and the bytes that the spool reserves for it."""

    promised: bool
    size: int


NOTHING_TO_RECORD = Reservation(True, 0)
"""For an answer that is not to be recorded."""


def reservation_size(body: int, choices: int, tokens: int | None) -> int:
    """Bytes to reserve for an answer to a request of `body` bytes: twice its record, so that the ends of segments may stay empty."""
    return 2 * (body + FRAME_BYTES + choices * TOKEN_BYTES * min(tokens or TOKENS, TOKENS))


class Recorder:
    """A bounded queue and one writer."""

    def __init__(self, interactions: Interactions, outbox: Outbox, metrics: Metrics, config: GatewayConfig) -> None:
        self._interactions = interactions
        self._outbox = outbox
        self._metrics = metrics
        self._seconds = config.record_seconds
        self._wait = config.outbox.wait_ms / 1000 * (1 - FAIR)
        self._fair = config.outbox.wait_ms / 1000 * FAIR
        self._queue: deque[_Item] = deque()
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
        reservation = Reservation(reserved > 0 or not self._outbox.away, reserved)
        if not reservation.promised:
            self._metrics.unrecorded.inc()
        return reservation

    def release(self, reservation: Reservation) -> None:
        """Give back what was reserved, once the answer is over."""
        self._outbox.release(reservation.size)

    def offer(self, interaction: Interaction) -> asyncio.Future[None]:
        """Takes the answer; the future is done once it is durable, or has StoreUnavailable after `record_seconds`."""
        now = monotonic()
        item = _Item(interaction, now + self._wait, now + self._seconds, asyncio.get_running_loop().create_future())
        # A future that nobody awaits (an answer the client did not see whole) must not warn.
        item.done.add_done_callback(_heard)
        if len(self._queue) >= QUEUE:
            self._fail(item, StoreUnavailable("too many answers wait to be recorded"))
            return item.done
        self._queue.append(item)
        self._empty.clear()
        self._filled.set()
        return item.done

    async def write(self, interaction: Interaction) -> None:
        """Returns once the answer is durable. StoreUnavailable if it is not within `record_seconds`."""
        await self.offer(interaction)

    async def flush(self, seconds: float) -> bool:
        """Waits until nothing is left to write, or `seconds` are over; whether nothing is."""
        try:
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True

    async def run(self) -> None:
        """Writes for ever."""
        while True:
            await self._filled.wait()
            if not self._queue:
                self._filled.clear()
                self._empty.set()
            elif self._outbox.away:
                await self._spool(self._take(SPOOLED))
            else:
                await self._put(self._take(GROUP))

    def _take(self, most: int) -> list[_Item]:
        return [self._queue.popleft() for _ in range(min(most, len(self._queue)))]

    async def _put(self, group: list[_Item]) -> None:
        put = asyncio.create_task(self._stored(group))
        try:
            await _within(put, max(self._fair, group[0].due - monotonic()))
        except asyncio.CancelledError:
            put.cancel()
            raise
        if not put.done():
            self._outbox.late(put)
        elif isinstance(put.exception(), StoreError):
            self._outbox.failed()
        elif isinstance(put.exception(), ValueError):
            await self._apart(group, self._put)
            return
        else:
            put.result()
            self._written(group)
            return
        await self._spool(group)

    async def _stored(self, group: list[_Item]) -> None:
        began = monotonic()
        await self._interactions.put([item.interaction for item in group])
        self._metrics.recorder_write.observe(monotonic() - began)

    async def _spool(self, group: list[_Item]) -> None:
        keeping = asyncio.ensure_future(self._outbox.keep([item.interaction for item in group]))
        keeping.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.wait({keeping}, timeout=max(AGAIN_SECONDS, group[-1].deadline - monotonic()))
        kept = 0
        try:
            kept = keeping.result() if keeping.done() else 0
        except ValueError:
            await self._apart(group, self._spool)
            return
        except OSError as error:
            log.error("answers could not be spooled: %s", error)
        self._written(group[:kept])
        if kept < len(group):
            self._again(group[kept:])
            await asyncio.sleep(AGAIN_SECONDS)

    async def _apart(self, group: list[_Item], write: Callable[[list[_Item]], Awaitable[None]]) -> None:
        """One of the group cannot be written at all; the others must not suffer."""
        if len(group) == 1:
            log.error("the answer %s cannot be recorded", group[0].interaction.id)
            self._fail(group[0], StoreUnavailable("the answer cannot be recorded"))
            return
        for item in group:
            await write([item])

    def _again(self, group: list[_Item]) -> None:
        now = monotonic()
        for item in reversed(group):
            if item.deadline > now:
                self._queue.appendleft(item)
            else:
                self._fail(item, StoreUnavailable("the answer could not be recorded in time"))

    def _written(self, group: Sequence[_Item]) -> None:
        for item in group:
            self._metrics.recorded.labels(item.interaction.status).inc()
            if item.interaction.untrainable:
                self._metrics.untrainable.labels(item.interaction.untrainable).inc()
            if not item.done.done():
                item.done.set_result(None)

    def _fail(self, item: _Item, error: StoreUnavailable) -> None:
        self._metrics.recorded.labels("lost").inc()
        if not item.done.done():
            item.done.set_exception(error)


def _heard(done: asyncio.Future[None]) -> None:
    if not done.cancelled():
        done.exception()


async def _within(task: asyncio.Task[None], seconds: float) -> None:
    """Returns once `task` is done or the time is over; what `asyncio.wait` does, at a third of its cost."""
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
