"""Resolve a configuration into the one its parts run with: ports chosen and free, models present."""

from __future__ import annotations

import socket
from pathlib import Path

import yaml

from ratchet import models
from ratchet.config import Config, GatewayConfig
from ratchet.errors import RatchetError
from ratchet.process import free_port
from ratchet.up.ready_file import write_private


def resolve(config: Config) -> Config:
    """Return the configuration with real ports, after checking that every model launched or trained here is present.

    Converting the built-in model takes half a minute. RatchetError if a port is in use; ConfigError if a model is missing.
    """
    needed = {e.model for e in config.engines if e.launch is not None} | {p.base for p in config.policies.values()}
    for name in needed:
        models.resolve(config.models[name].path)
    return config.model_copy(update={"gateway": _ports(config.gateway)})


def write(config: Config, data: Path) -> Path:
    """Write the configuration to `data` for the parts to read, and return its path. Mode 0600, since it may hold engines' keys."""
    path = data / "ratchet.yaml"
    write_private(path, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True).encode())
    return path


def address(host: str, port: int) -> str:
    """Return the URL at which this machine reaches a listener on `host`."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{reachable}:{port}"


def _ports(gateway: GatewayConfig) -> GatewayConfig:
    port = gateway.port or free_port()
    admin = gateway.admin_port or free_port()
    if port == admin and gateway.host == gateway.admin_host:
        raise RatchetError(f"gateway.port and gateway.admin_port are both {port}; give them different ones")
    _check_free(gateway.host, port, "gateway.port")
    _check_free(gateway.admin_host, admin, "gateway.admin_port")
    return gateway.model_copy(update={"port": port, "admin_port": admin})


def _check_free(host: str, port: int, key: str) -> None:
    try:
        family, kind, proto, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, kind, proto) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
    except OSError as error:
        raise RatchetError(f"cannot listen on {host}:{port} ({error.strerror}); set {key} to another port, or 0 for a free one") from None
