"""What every worker process does: start its services, listen on its ports, serve until it is told to stop, drain."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from gateway.app import data_plane
from gateway.server.connection_limit import ConnectionLimit, max_connections
from gateway.server.protocol import limited_by
from gateway.services import Services
from gateway.telemetry import logs
from ratchet.buffer import Store, open_store
from ratchet.config import Config
from ratchet.errors import ConfigError
from ratchet.tasks import end

BACKLOG = 2048
GC_THRESHOLD = 20_000
"""Net allocations after which the cyclic garbage collector collects its youngest generation."""
CLOSE_SECONDS = 2
"""Seconds that uvicorn waits for open requests after the drain."""


class Server(uvicorn.Server):
    """uvicorn's server without its signal handlers, since the gateway must drain first."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def stop_listening(self) -> None:
        """Take no new connections, and keep those that are open."""
        for listening in getattr(self, "servers", ()):
            listening.close()


@contextlib.asynccontextmanager
async def opened(config: Config, data: Path, *, first_keys: bool) -> AsyncIterator[Services]:
    """Start the services of a worker, and stop them in the end. RatchetError, OSError if they cannot start."""
    asyncio.get_running_loop().set_exception_handler(logs.unhandled)
    store = await open_store(config.store.url, config.store, data=data)
    try:
        await _check_keys(store, first_keys)
        services = Services(config, data, store)
        try:
            await services.start()
            _tune_garbage_collector()
            yield services
        finally:
            await services.stop()
    finally:
        await store.close()


async def run(
    services: Services,
    stop: asyncio.Event,
    served: Sequence[tuple[Server, socket.socket]],
    background: Coroutine[Any, Any, None],
    drain: Callable[[], Awaitable[object]],
) -> None:
    """Serve, and run `background`, until `stop` is set or a part that must run for ever ends. Then drain. Raises what ended it."""
    running = [asyncio.create_task(server.serve([sock])) for server, sock in served]
    beside = asyncio.create_task(background)
    try:
        ends: list[asyncio.Future[Any]] = [asyncio.ensure_future(stop.wait()), services.failed, beside, *running]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        ends[0].cancel()
        await drain()
    finally:
        for server, _ in served:
            server.should_exit = True
        await end([beside])
        await asyncio.gather(*running)
    for part in (services.failed, beside):
        if part.done() and not part.cancelled():
            part.result()


def data_server(services: Services) -> Server:
    """The server of the data plane."""
    limits = services.config.gateway.limits
    return server(data_plane(services), ConnectionLimit(limits, max_connections(limits), services.metrics.early_refusal))


async def _check_keys(store: Store, first_keys: bool) -> None:
    if not first_keys and not await store.keys.all():
        raise ConfigError("no key is in the store, so nobody could call; create one with `ratchet keys create`, or use `ratchet up`")


def _tune_garbage_collector() -> None:
    """Exempt what exists now, which stays, and collect rarely: a request leaves no cycles behind."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 20)


def server(app: ASGIApp, limit: ConnectionLimit) -> Server:
    return Server(
        uvicorn.Config(
            app,
            loop="none",
            http=limited_by(limit),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=CLOSE_SECONDS,
        )
    )


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens already, so that whoever reads the ready line can connect at once. OSError if the port is taken."""
    return _bound(host, port, shared=False)


def shared_port(host: str, port: int) -> socket.socket:
    """The same, for a port that all workers share. The kernel distributes the connections over them."""
    return _bound(host, port, shared=True)


def _bound(host: str, port: int, *, shared: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG, reuse_port=shared)
    except OSError as error:
        raise OSError(f"cannot listen on {host}:{port}: {error.strerror}") from None
