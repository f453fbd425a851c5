"""What every worker has: its services, its listening ports, and the time from their opening to their end."""

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
GARBAGE = 20_000
"""Objects made and not yet gone at which the cyclic collector looks at the young ones."""
CLOSE_SECONDS = 2
"""Seconds uvicorn waits for what is left after the drain."""


class Server(uvicorn.Server):
    """uvicorn without its signal handlers: the gateway drains first."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def hang_up(self) -> None:
        """Takes no new connection; those there are stay."""
        for listening in getattr(self, "servers", ()):
            listening.close()


@contextlib.asynccontextmanager
async def opened(config: Config, data: Path, *, first_keys: bool) -> AsyncIterator[Services]:
    """The services of one worker, started, and stopped in the end. RatchetError, OSError: they cannot start."""
    asyncio.get_running_loop().set_exception_handler(logs.unhandled)
    store = await open_store(config.store.url, config.store, data=data)
    try:
        await _check_keys(store, first_keys)
        services = Services(config, data, store)
        try:
            await services.start()
            _spare_the_collector()
            yield services
        finally:
            await services.stop()
    finally:
        await store.close()


async def run(
    services: Services,
    stop: asyncio.Event,
    served: Sequence[tuple[Server, socket.socket]],
    beside: Coroutine[Any, Any, None],
    drain: Callable[[], Awaitable[object]],
) -> None:
    """Serves and runs `beside` until `stop` is set or something that must run for ever ends; then drains. Raises what ended it."""
    running = [asyncio.create_task(server.serve([sock])) for server, sock in served]
    also = asyncio.create_task(beside)
    try:
        ends: list[asyncio.Future[Any]] = [asyncio.ensure_future(stop.wait()), services.failed, also, *running]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        ends[0].cancel()
        await drain()
    finally:
        for server, _ in served:
            server.should_exit = True
        await end([also])
        await asyncio.gather(*running)
    for part in (services.failed, also):
        if part.done() and not part.cancelled():
            part.result()


def data_server(services: Services) -> Server:
    """Of the data plane."""
    limits = services.config.gateway.limits
    return server(data_plane(services), ConnectionLimit(limits, max_connections(limits), services.metrics.turned_away))


async def _check_keys(store: Store, first_keys: bool) -> None:
    if not first_keys and not await store.keys.all():
        raise ConfigError("no key is in the store, so nobody could call; create one with `ratchet keys create`, or use `ratchet up`")


def _spare_the_collector() -> None:
    """What is there now stays: the cyclic collector need not look at it, nor come every few requests (their objects are no cycles)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE, 20, 20)


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
    """Bound and listening, so that whoever reads the announcement may connect at once. OSError: it is taken."""
    return _bound(host, port, shared=False)


def shared_port(host: str, port: int) -> socket.socket:
    """The same, of a port that all workers listen on: the kernel spreads the connections over them."""
    return _bound(host, port, shared=True)


def _bound(host: str, port: int, *, shared: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG, reuse_port=shared)
    except OSError as error:
        raise OSError(f"cannot listen on {host}:{port}: {error.strerror}") from None
