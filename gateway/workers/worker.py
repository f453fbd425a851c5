"""A worker process other than the first: it serves the data plane alone, on the first worker's port."""

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
from gateway.server.ports import data_server, opened, run, shared_port
from gateway.services import Services
from gateway.telemetry import logs
from gateway.workers import aggregation
from gateway.workers.channel import HEARTBEAT, HEARTBEAT_SECONDS, LISTENING, Assignment, Channel, Reply, Request
from ratchet.clock import monotonic
from ratchet.config import Config
from ratchet.process.startup import stop_event
from ratchet.tasks import end

PROBE_SECONDS = 15.0
"""Seconds to wait for a first probe of each engine; after that the worker listens all the same."""
POLL_SECONDS = 0.02

log = logging.getLogger(__name__)


async def run_worker(data: Path) -> None:
    """Serve as assigned over standard input, until SIGTERM or until the first worker ends.

    RatchetError, OSError or EOFError if it cannot start.
    """
    channel = await Channel.over(socket.socket(fileno=os.dup(sys.stdin.fileno())))
    assignment = msgspec.msgpack.decode(await channel.receive(), type=Assignment)
    config = Config.model_validate(assignment.config)
    logs.setup(config.gateway.telemetry)
    heartbeat = asyncio.create_task(_send_heartbeats(channel))
    try:
        await _serve(channel, assignment, config, data)
    finally:
        await end([heartbeat])


async def _serve(channel: Channel, assignment: Assignment, config: Config, data: Path) -> None:
    async with opened(config, data, first_keys=assignment.first_keys) as services:
        stop = stop_event()
        services.worker_pool.engines_found = assignment.engines_found
        await _probe_engines(services)
        sock = shared_port(config.gateway.host, config.gateway.port)
        server = data_server(services)

        async def drain() -> None:
            server.stop_listening()  # new connections go to the first worker, which answers that it drains, or to its successor
            await services.drain()

        await run(services, stop, [(server, sock)], _reply_to_all(services, channel), drain)


async def _probe_engines(services: Services) -> None:
    """Wait until each engine that should run was probed: a worker started late must refuse nothing that the others would take."""
    with store_may_fail(log, "reading the fleet"):
        await services.fleet.refresh()
    deadline = monotonic() + PROBE_SECONDS
    while monotonic() < deadline:
        if all(r.healthy or r.failures or r.record.state != "ready" for r in services.fleet.all()):
            return
        await asyncio.sleep(POLL_SECONDS)


async def _send_heartbeats(channel: Channel) -> None:
    """Show that the event loop runs, until the first worker ends."""
    with contextlib.suppress(OSError):
        while True:
            await channel.send(Reply(HEARTBEAT))
            await asyncio.sleep(HEARTBEAT_SECONDS)


async def _reply_to_all(services: Services, channel: Channel) -> None:
    """Report that this worker listens, then reply to the first worker's requests until that ends."""
    try:
        await channel.send(Reply(LISTENING))
        while True:
            request = msgspec.msgpack.decode(await channel.receive(), type=Request)
            await channel.send(Reply(request.number, await _reply(services, request)))
    except (OSError, EOFError):
        return


async def _reply(services: Services, request: Request) -> bytes:
    if request.kind == "metrics":
        return await asyncio.to_thread(lambda: aggregation.encode(aggregation.collect(services.metrics.registry)))
    if request.kind == "load":
        return msgspec.msgpack.encode({r.name: (r.total, r.tokens) for r in services.fleet.all() if r.total})
    if request.kind == "has_engine":
        return b"yes" if services.fleet.ready else b""
    if request.kind == "forget_key":
        services.keys.forget(request.text)
    else:
        services.worker_pool.engines_found = True
    return b""
