"""A worker that is not the first: the data plane alone, on the first one's port, until that says so or is gone."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
from pathlib import Path

import msgspec

from gateway.errors import store_may_fail
from gateway.server.ports import data_server, opened, run, shared_port, stop_signal
from gateway.services import Services
from gateway.telemetry import logs
from gateway.workers import sums
from gateway.workers.link import BEAT, BEAT_SECONDS, LISTENS, Answer, Link, Order, Question
from ratchet.clock import monotonic
from ratchet.config import Config
from ratchet.tasks import end

SETTLE_SECONDS = 15.0
"""Seconds for a first look at each engine; then it listens all the same."""
LOOK_SECONDS = 0.02

log = logging.getLogger(__name__)


async def work(data: Path) -> None:
    """Serves as the first worker ordered over standard input. RatchetError, OSError, EOFError: it cannot start."""
    link = await Link.over(socket.socket(fileno=os.dup(sys.stdin.fileno())))
    order = msgspec.msgpack.decode(await link.receive(), type=Order)
    config = Config.model_validate(order.config)
    logs.setup(config.gateway.telemetry)
    beating = asyncio.create_task(_beats(link))
    try:
        await _serve(link, order, config, data)
    finally:
        await end([beating])


async def _serve(link: Link, order: Order, config: Config, data: Path) -> None:
    async with opened(config, data, first_keys=order.first_keys) as services:
        stop = stop_signal()
        services.crew.open = order.open
        await _settled(services)
        sock = shared_port(config.gateway.host, config.gateway.port)
        server = data_server(services)

        async def drain() -> None:
            server.hang_up()  # new connections go to the first, which says that it drains; or to who took its place
            await services.drain()

        await run(services, stop, [(server, sock)], _answers(services, link), drain)


async def _settled(services: Services) -> None:
    """Once it has looked at each engine that is said to run, so that one started late refuses nothing the others would take."""
    with store_may_fail(log, "reading the fleet"):
        await services.fleet.refresh()
    deadline = monotonic() + SETTLE_SECONDS
    while monotonic() < deadline:
        if all(r.healthy or r.failures or r.record.state != "ready" for r in services.fleet.all()):
            return
        await asyncio.sleep(LOOK_SECONDS)


async def _beats(link: Link) -> None:
    """Shows that the event loop turns, until the first is gone."""
    with contextlib.suppress(OSError):
        while True:
            await link.send(Answer(BEAT))
            await asyncio.sleep(BEAT_SECONDS)


async def _answers(services: Services, link: Link) -> None:
    """Says that it listens, then answers the first, until that is gone."""
    try:
        await link.send(Answer(LISTENS))
        while True:
            question = msgspec.msgpack.decode(await link.receive(), type=Question)
            await link.send(Answer(question.number, await _answer(services, question)))
    except (OSError, EOFError):
        return


async def _answer(services: Services, question: Question) -> bytes:
    if question.kind == "metrics":
        return await asyncio.to_thread(lambda: sums.packed(sums.collected(services.metrics.registry)))
    if question.kind == "load":
        return msgspec.msgpack.encode({r.name: (r.total, r.tokens) for r in services.fleet.all() if r.total})
    if question.kind == "ready":
        return b"ready" if services.fleet.ready else b""
    if question.kind == "forget":
        services.keys.forget(question.text)
    else:
        services.crew.open = True
    return b""
