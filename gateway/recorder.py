"""Write finished answers to the store, many in one round trip; tell each request when its own is durable."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import NamedTuple

from gateway.metrics import Metrics
from ratchet.buffer.interactions import Interactions
from ratchet.clock import monotonic
from ratchet.errors import StoreError, StoreUnavailable
from ratchet.types import Interaction

GROUP = 64
"""Answers in one write."""
QUEUE = 4096
AGAIN_SECONDS = 0.1

log = logging.getLogger(__name__)


class _Item(NamedTuple):
    interaction: Interaction
    deadline: float
    done: asyncio.Future[None]


class Recorder:
    """A bounded queue and one writer."""

    def __init__(self, interactions: Interactions, metrics: Metrics, seconds: float) -> None:
        self._interactions = interactions
        self._metrics = metrics
        self._seconds = seconds
        self._queue: deque[_Item] = deque()
        self._filled = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def waiting(self) -> int:
        """Answers in the queue."""
        return len(self._queue)

    def offer(self, interaction: Interaction) -> asyncio.Future[None]:
        """Takes the answer; the future is done once it is durable, or has StoreUnavailable after `record_seconds`."""
        item = _Item(interaction, monotonic() + self._seconds, asyncio.get_running_loop().create_future())
        # A future that nobody awaits (an answer the client did not see whole) must not warn.
        item.done.add_done_callback(lambda done: done.cancelled() or done.exception())
        if len(self._queue) >= QUEUE:
            self._fail(item, StoreUnavailable("too many answers wait to be recorded"))
            return item.done
        self._queue.append(item)
        self._empty.clear()
        self._filled.set()
        return item.done

    async def write(self, interaction: Interaction) -> None:
        """Returns once the answer is durable. StoreUnavailable if it is not within `record_seconds`."""
        try:
            async with asyncio.timeout(self._seconds):
                await asyncio.shield(self.offer(interaction))
        except TimeoutError:
            raise StoreUnavailable("the answer could not be recorded in time") from None

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
            group = [self._queue.popleft() for _ in range(min(GROUP, len(self._queue)))]
            if not group:
                self._filled.clear()
                self._empty.set()
                continue
            await self._put(group)

    async def _put(self, group: list[_Item]) -> None:
        try:
            async with asyncio.timeout(max(AGAIN_SECONDS, max(item.deadline for item in group) - monotonic())):
                with self._metrics.recorder_write.time():
                    await self._interactions.put([item.interaction for item in group])
        except (StoreUnavailable, TimeoutError):
            self._again(group)
            await asyncio.sleep(AGAIN_SECONDS)
        except (StoreError, ValueError) as error:
            if len(group) == 1:
                log.error("an answer could not be recorded: %s", error)
                self._fail(group[0], StoreUnavailable("the store refused the answer"))
                return
            for item in group:  # one of them is at fault; the others must not suffer
                await self._put([item])
        else:
            for item in group:
                self._written(item)

    def _again(self, group: list[_Item]) -> None:
        now = monotonic()
        for item in reversed(group):
            if item.deadline > now:
                self._queue.appendleft(item)
            else:
                self._fail(item, StoreUnavailable("the answer could not be recorded in time"))

    def _written(self, item: _Item) -> None:
        self._metrics.recorded.labels(item.interaction.status).inc()
        if item.interaction.untrainable:
            self._metrics.untrainable.labels(item.interaction.untrainable).inc()
        if not item.done.done():
            item.done.set_result(None)

    def _fail(self, item: _Item, error: StoreUnavailable) -> None:
        self._metrics.recorded.labels("lost").inc()
        if not item.done.done():
            item.done.set_exception(error)
