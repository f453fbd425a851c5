"""Engines added, drained and removed at run time; the store tells every gateway."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import Any
from urllib.parse import urlsplit

import msgspec
from pydantic import ValidationError

from gateway.dialects.schema import Strict
from gateway.errors import ApiError, invalid, not_found
from gateway.routing.fleet import described
from gateway.routing.replica import Replica
from gateway.services import Services
from ratchet import names
from ratchet.clock import monotonic
from ratchet.config import EngineConfig
from ratchet.errors import Conflict

RESOLVE_SECONDS = 5.0
LONGEST = 512
"""Characters of a text field."""
METADATA = frozenset({"100.100.100.200", "fd00:ec2::254"})
"""Clouds' metadata servers outside the link-local range."""


class DrainRequest(Strict):
    """`POST /admin/engines/{name}/drain`; false undoes it."""

    drain: bool = True


async def rows(services: Services, *replicas: Replica) -> list[dict[str, Any]]:
    """Engines as operators see them, with what all workers have there."""
    load = await services.worker_pool.load()
    return [_row(replica, *load.get(replica.name, (0, 0))) for replica in replicas]


def _row(replica: Replica, requests: int, tokens: float) -> dict[str, Any]:
    """Its key stays here. `requests`, `tokens`: the other workers'."""
    fields = ("name", "kind", "model", "url", "served_name", "state", "restarts", "launched", "added", "weight", "desired")
    told = {key: getattr(replica.record, key) for key in fields}
    seen = {
        "healthy": replica.healthy,
        "adapters": replica.adapters,
        "inflight": replica.total + requests,
        "tokens": replica.tokens + tokens,
    }
    now = monotonic()
    return {**told, **seen, "breaker": replica.breaker.state(now), "ejected": replica.out_until > now, "paused": replica.paused_until > now}


def known(services: Services, name: str) -> Replica:
    """The engine of that name. ApiError 404."""
    found = services.fleet.replicas.get(name) if names.is_name(name) else None
    if found is None:
        raise not_found(f"There is no engine {name[:63]!r}.", "engine", "engine_not_found")
    return found


async def add(services: Services, tree: dict[str, Any]) -> Replica:
    """A new engine that already runs; it takes requests once it has proved that it generates. ApiError 400, 409. StoreError."""
    engine = _checked(services, tree)
    url = await _reachable(engine.url or "")
    await services.fleet.refresh()
    twin = next((r for r in services.fleet.all() if r.name == engine.name or r.record.url.rstrip("/") == url), None)
    if twin is not None:
        raise _conflict(f"Engine {twin.name!r} has that name or URL already.")
    try:
        await services.store.fleet.add(msgspec.structs.replace(described(engine, url), added=True))
    except Conflict as error:
        raise _conflict(str(error)) from None
    await services.fleet.refresh()
    return known(services, engine.name)


async def drain(services: Services, name: str, *, on: bool) -> Replica:
    """It takes no new requests, or takes them again; those it has in hand finish. ApiError 404, 409."""
    await _want(services, name, "drain" if on else "serve")
    return known(services, name)


async def remove(services: Services, name: str) -> Replica:
    """It takes no new requests and goes once no gateway has one at it. ApiError 404; 409 if Ratchet launched it."""
    replica = known(services, name)
    if replica.record.launched:
        raise _conflict(f"Ratchet launched {name!r} itself; take it out of the configuration, or drain it.")
    await _want(services, name, "remove")
    return replica


async def _want(services: Services, name: str, desired: Any) -> None:
    known(services, name)
    try:
        await services.store.fleet.want(name, desired)
    except Conflict as error:
        raise _conflict(str(error)) from None
    await services.fleet.refresh()


def _checked(services: Services, tree: dict[str, Any]) -> EngineConfig:
    if tree.get("launch") is not None:
        raise invalid("An engine that Ratchet launches belongs in the configuration; give `url`.", "launch")
    try:
        engine = EngineConfig.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        param = ".".join(str(part) for part in first["loc"]) or None
        raise invalid(f"Invalid value for {param or 'body'!r}: {first['msg']}.", param) from None
    if engine.model not in services.config.models:
        raise invalid(f"No model named {engine.model!r} is configured.", "model")
    for param in ("served_name", "api_key", "adapters_at"):
        text = getattr(engine, param)
        if text is not None and not (0 < len(text) <= LONGEST and text.isascii() and text.isprintable()):
            raise invalid(f"Invalid value for {param!r}: 1-{LONGEST} printable ASCII characters.", param)
    return engine


async def _reachable(url: str) -> str:
    """The URL, once it names a host that an engine may be at: no metadata service, no multicast. ApiError 400.

    Private and loopback addresses are where engines belong. Redirects are never followed.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        raise _bad_url("it is not a URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or len(url) > LONGEST or not (url.isascii() and url.isprintable()):
        raise _bad_url("http:// or https:// and a host")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment or " " in url:
        raise _bad_url("no user, query or fragment; a key goes in `api_key`")
    try:
        async with asyncio.timeout(RESOLVE_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError, UnicodeError):
        raise _bad_url("its host has no address") from None
    if any(_forbidden(str(address[0])) for *_, address in found):
        raise _bad_url("no engine may be at that address")
    return url.rstrip("/")


def _forbidden(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_link_local or address.is_multicast or address.is_unspecified or str(address) in METADATA


def _bad_url(why: str) -> ApiError:
    return invalid(f"Invalid value for 'url': {why}.", "url")


def _conflict(message: str) -> ApiError:
    return ApiError(409, message, code="conflict")
