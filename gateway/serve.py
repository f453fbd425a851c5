"""One process, one loop, two uvicorn servers; SIGTERM drains."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
from starlette.types import ASGIApp

from gateway import logs
from gateway.app import admin_plane, data_plane
from gateway.door import Door, connections
from gateway.protocol import bounded
from gateway.services import Services
from ratchet.buffer import Store, open_store
from ratchet.config import Config
from ratchet.errors import ConfigError

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


async def serve(config: Config, data: Path, *, first_keys: bool = False) -> None:
    """Serves until SIGTERM or SIGINT, then drains. RatchetError, OSError: it cannot start."""
    asyncio.get_running_loop().set_exception_handler(logs.unhandled)
    _place(data).unlink(missing_ok=True)  # an earlier run's addresses must not be taken for this one's
    store = await open_store(config.store.url, config.store, data=data)
    try:
        await _check_keys(store, first_keys)
        services = Services(config, data, store)
        try:
            await services.start()
            _spare_the_collector()
            await _serve(services, data)
        finally:
            await services.stop()
    finally:
        await store.close()


async def _check_keys(store: Store, first_keys: bool) -> None:
    if not first_keys and not await store.keys.all():
        raise ConfigError("no key is in the store, so nobody could call; create one with `ratchet keys create`, or use `ratchet up`")


async def _serve(services: Services, data: Path) -> None:
    stop = _stop_signal()
    gateway = services.config.gateway
    limits = gateway.limits
    sockets = [_listen(gateway.host, gateway.port), _listen(gateway.admin_host, gateway.admin_port)]
    servers = [
        _server(data_plane(services), Door(limits, connections(limits), services.metrics.turned_away)),
        _server(admin_plane(services), Door(limits, limits.max_admin_connections, services.metrics.turned_away)),
    ]
    running = [asyncio.create_task(server.serve([sock])) for server, sock in zip(servers, sockets, strict=True)]
    _announce(data, *map(_url, sockets))
    try:
        ends: list[asyncio.Future[Any]] = [asyncio.ensure_future(stop.wait()), services.failed, *running]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        ends[0].cancel()
        await services.drain()
    finally:
        for server in servers:
            server.should_exit = True
        await asyncio.gather(*running)
    if services.failed.done():
        services.failed.result()


def _spare_the_collector() -> None:
    """What is there now stays: the cyclic collector need not look at it, nor come every few requests (their objects are no cycles)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE, 20, 20)


def _stop_signal() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def _server(app: ASGIApp, door: Door) -> Server:
    return Server(
        uvicorn.Config(
            app,
            loop="none",
            http=bounded(door),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=CLOSE_SECONDS,
        )
    )


def _listen(host: str, port: int) -> socket.socket:
    """Bound and listening, so that whoever reads the announcement may connect at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise OSError(f"cannot listen on {host}:{port}: {error.strerror}") from None


def _url(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _place(data: Path) -> Path:
    return data / "run" / "gateway.json"


def _announce(data: Path, gateway: str, admin: str) -> None:
    line = msgspec.json.encode({"gateway": gateway, "admin": admin})
    place = _place(data)
    place.parent.mkdir(parents=True, exist_ok=True)
    unfinished = place.with_suffix(".tmp")
    unfinished.write_bytes(line)
    unfinished.rename(place)
    sys.stdout.write(line.decode() + "\n")
    sys.stdout.flush()
