"""The first worker: it serves both planes, runs the other workers, and announces when all of them listen."""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path

import msgspec

from gateway.app import admin_plane
from gateway.server.connection_limit import ConnectionLimit
from gateway.server.ports import data_server, listen, opened, run, server, shared_port
from gateway.services import Services
from ratchet import durable
from ratchet.config import Config
from ratchet.process.startup import stop_event


async def serve(config: Config, data: Path, *, first_keys: bool = False) -> None:
    """Serve until SIGTERM or SIGINT, then drain. RatchetError, OSError if it cannot start."""
    _ready_file(data).unlink(missing_ok=True)  # so that nobody takes the addresses of an earlier run for this one's
    async with opened(config, data, first_keys=first_keys) as services:
        stop = stop_event()
        limits = config.gateway.limits
        sockets = _data_port(config), listen(config.gateway.admin_host, config.gateway.admin_port)
        admin = server(admin_plane(services), ConnectionLimit(limits, limits.max_admin_connections, services.metrics.early_refusal))
        port = sockets[0].getsockname()[1]
        workers = services.worker_pool.run(port, first_keys, lambda: _announce(data, *map(url, sockets)))
        await run(services, stop, [(data_server(services), sockets[0]), (admin, sockets[1])], workers, lambda: _drain(services))


async def _drain(services: Services) -> None:
    await asyncio.gather(services.drain(), services.worker_pool.stop())


def _data_port(config: Config) -> socket.socket:
    gateway = config.gateway
    if gateway.workers == 1:
        return listen(gateway.host, gateway.port)
    if gateway.port:
        listen(gateway.host, gateway.port).close()  # fails if it is in use: another program's workers would share it too
    return shared_port(gateway.host, gateway.port)


def url(sock: socket.socket) -> str:
    """The URL of a listening socket."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _ready_file(data: Path) -> Path:
    return data / "run" / "gateway.json"


def _announce(data: Path, gateway: str, admin: str) -> None:
    line = msgspec.json.encode({"gateway": gateway, "admin": admin})
    path = _ready_file(data)
    path.parent.mkdir(parents=True, exist_ok=True)
    durable.write(path, line)
    sys.stdout.write(line.decode() + "\n")
    sys.stdout.flush()
