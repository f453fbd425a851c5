"""Make another version of a policy live, for an operator: it is verified and on every replica before the pointer moves."""

from __future__ import annotations

import logging
from typing import Literal

from gateway.errors import ApiError, conflict, invalid, not_found, unavailable
from gateway.services import Services
from ratchet import names
from ratchet.errors import AdapterError, Conflict, EngineError, EngineUnsupported
from ratchet.types import PolicyRecord, PolicyVersionRecord

WAS_LIVE = ("live", "retired", "rolled_back")
"""States of a version that was live once."""
log = logging.getLogger(__name__)


async def policy(services: Services, name: str) -> PolicyRecord:
    """The policy of that name. ApiError 404."""
    found = await services.store.registry.policy(name) if names.is_name(name) else None
    if found is None:
        raise not_found(f"There is no policy {name[:63]!r}.", "policy", "policy_not_found")
    return found


async def previous(services: Services, name: str) -> int:
    """The version that was live before the live one and was not rolled back; 0 if none remains. ApiError 409 if the base is live."""
    current = await policy(services, name)
    if current.live == 0:
        raise conflict("The base itself is live; there is nothing to roll back to.")
    registry = services.store.registry
    retired = {record.version for record in await registry.versions(name) if record.state == "retired"}
    return next((version for version in await registry.lived(name) if version in retired), 0)


async def change(services: Services, name: str, to: int, reason: Literal["promote", "rollback"]) -> PolicyRecord:
    """Make version `to` live.

    ApiError: 404 if it is unknown; 409 if it is not fit to serve, or somebody else moved the pointer meanwhile; 501 or
    503 if an engine does not take it.
    """
    current = await policy(services, name)
    record = await services.store.registry.version(name, to)
    if record is None:
        raise not_found(f"{name} has no version {to}.", "version", "version_not_found")
    if to == current.live:
        raise conflict(f"{name}@{to} is live already.")
    if record.state not in WAS_LIVE:
        raise conflict(f"{name}@{to} is {record.state}: only a version that was live before can be.")
    if to:
        await _place(services, current, record)
    try:
        moved = await services.store.registry.move(name, to, expect_live=current.live, reason=reason)
    except Conflict as error:
        raise conflict(str(error)) from None
    log.info("%s: %s@%d -> %s@%d", reason, name, current.live, name, to)
    return moved


async def _place(services: Services, policy: PolicyRecord, record: PolicyVersionRecord) -> None:
    if policy.name not in services.config.policies:
        raise invalid(f"{policy.name} is not in the configuration.", "policy")
    try:
        wanted = {services.adapter_cache.name(record): await services.adapter_cache.verified(record)}
        await services.fleet.place(policy.base, wanted)
    except AdapterError as error:
        raise conflict(f"The adapter is not what was published: {error}") from None
    except EngineUnsupported as error:
        raise ApiError(501, f"{error}.", code="not_implemented") from None
    except EngineError as error:
        raise unavailable(f"Not every engine took the adapter: {error}", "engine_unavailable") from None
