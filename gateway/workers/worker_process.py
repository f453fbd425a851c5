"""The process of another worker, which the first one starts, restarts, asks and ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Callable
from pathlib import Path

import msgspec

from gateway.workers import aggregation
from gateway.workers.channel import HEARTBEAT, HEARTBEAT_SECONDS, LISTENING, Assignment, Channel, Kind, Reply, Request
from ratchet.errors import RatchetError
from ratchet.process import spawn
from ratchet.process.supervision import CANNOT_START, WRONG_CONFIGURATION, keep_running
from ratchet.tasks import end

REPLY_SECONDS = 2.0
"""Seconds a worker may take to reply; after that its previous report counts."""
MAX_UNANSWERED = 64
"""Requests a worker may leave unanswered; past that it is sent no more."""

log = logging.getLogger(__name__)


class WorkerProcess:
    """One other worker. `silence` is the seconds without a heartbeat after which it is killed."""

    def __init__(
        self, number: int, data: Path, silence: float, assignment: Callable[[], Assignment], restarted: Callable[[str], None]
    ) -> None:
        self.name = str(number)
        self.listening = asyncio.Event()
        """Set once it listened for the first time."""
        self.last: bytes = b""
        """The metrics it reported last, encoded; b"" if it has reported none since it started."""
        self.past: aggregation.Families = []
        """What its predecessors had counted."""
        self.process: Process | None = None
        self._argv = [sys.executable, *(["-P"] if sys.flags.safe_path else []), "-m", "gateway", "--data", str(data), "--worker"]
        self._assignment = assignment
        self._restarted = restarted
        self._silence = silence
        self._silent = -math.inf
        """Seconds since its last message; -inf before its first."""
        self._channel: Channel | None = None
        self._sent = self._unanswered = 0
        self._waiting: dict[int, asyncio.Future[bytes]] = {}

    async def keep(self) -> None:
        """Run the worker until cancelled. RatchetError if it ends each time before it listens."""
        listened = self.listening.is_set
        status = await keep_running(
            self._life, was_ready=listened, is_final=lambda status: status == WRONG_CONFIGURATION and not listened(), ended=self._ended
        )
        raise RatchetError(f"worker {self.name} ends with status {status} each time it starts")

    async def ask(self, kind: Kind, text: str = "") -> bytes | None:
        """Send a request and return the reply; None if the worker does not run or does not reply in REPLY_SECONDS."""
        if self._channel is None or self._unanswered >= MAX_UNANSWERED:
            return None
        self._sent += 1
        number = self._sent
        reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[number] = reply
        self._unanswered += 1
        try:
            async with asyncio.timeout(REPLY_SECONDS):
                await self._channel.send(Request(number, kind, text))
                return await reply
        except (OSError, TimeoutError):
            return None
        finally:
            self._waiting.pop(number, None)

    async def report(self) -> None:
        """Update `last`, if the worker replies."""
        self.last = await self.ask("metrics") or self.last

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)

    async def _ended(self, status: int) -> None:
        self.past = await asyncio.to_thread(lambda: aggregation.cumulative(self.past, aggregation.decode(self.last)))
        self.last = b""
        log.warning("worker %s ended with status %d; it is started again", self.name, status)
        self._restarted(self.name)

    async def _life(self) -> int:
        """Start the worker and return its exit status."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            try:
                self.process = await spawn(self._argv, stdin=theirs.fileno(), name=f"worker {self.name}")
            except OSError:
                return CANNOT_START
            theirs.close()
            channel = await Channel.over(ours)
            watching = asyncio.create_task(self._kill_if_silent())
            try:
                with contextlib.suppress(OSError, EOFError, msgspec.MsgspecError):
                    await self._receive(channel)
                # It has closed the channel, or sends what no worker sends.
                self.signal(signal.SIGTERM)
                return await self.process.wait()
            finally:
                self._disconnected()
                channel.close()
                await end([watching])

    async def _kill_if_silent(self) -> None:
        """Count the seconds of silence by turns of this loop, so that time in which this process itself stood still does not count."""
        self._silent = -math.inf
        while self._silent < self._silence:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            self._silent += HEARTBEAT_SECONDS
        log.error("worker %s stands still; it is killed", self.name)
        self.signal(signal.SIGKILL)

    async def _receive(self, channel: Channel) -> None:
        await channel.send(self._assignment())
        while True:
            reply = msgspec.msgpack.decode(await channel.receive(), type=Reply)
            self._silent = 0.0
            if reply.number == HEARTBEAT:
                continue
            if reply.number == LISTENING:
                self._channel = channel
                self.listening.set()
                continue
            self._unanswered -= 1
            waiting = self._waiting.pop(reply.number, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(reply.data)

    def _disconnected(self) -> None:
        self._channel, self._unanswered = None, 0
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(BrokenPipeError("the worker has ended"))
