"""`/admin/engines`: replicas added, drained and removed at run time. The store tells every gateway."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from pydantic import ValidationError

from gateway.api.admin.engine_url import reachable
from gateway.api.endpoint import Handlers, as_list, endpoint
from gateway.api.table import OPERATOR
from gateway.dialects.schema import Strict
from gateway.errors import conflict, invalid, not_found
from gateway.routing.fleet import described
from gateway.routing.replica import Replica
from gateway.services import Services
from ratchet import names
from ratchet.clock import monotonic
from ratchet.config import EngineConfig
from ratchet.errors import Conflict

ENGINES = "/admin/engines"
ENGINE = ENGINES + "/{name}"
RECORDED = ("name", "kind", "model", "url", "served_name", "state", "restarts", "launched", "added", "weight", "desired")
"""Fields of an engine's record that are shown; its key is not."""
LONGEST = 512
"""Characters of a text field."""


class DrainRequest(Strict):
    """`POST /admin/engines/{name}/drain`; false undoes it."""

    drain: bool = True


class Engines(Handlers):
    @endpoint("GET", ENGINES, OPERATOR)
    async def every(self) -> object:
        """List replicas with their health, load and adapters."""
        return as_list(await self._rows(*sorted(self.services.fleet.all(), key=lambda replica: replica.name)))

    @endpoint("POST", ENGINES, OPERATOR, status=201, form=EngineConfig)
    async def add(self, body: dict[str, Any]) -> object:
        """Add an engine that is already running. It gets requests once it has proved that it generates."""
        engine = _checked(self.services, body)
        url = await reachable(engine.url or "")
        fleet = self.services.fleet
        await fleet.refresh()
        twin = next((r for r in fleet.all() if r.name == engine.name or r.record.url.rstrip("/") == url), None)
        if twin is not None:
            raise conflict(f"Engine {twin.name!r} has that name or URL already.")
        try:
            await self.services.store.fleet.add(msgspec.structs.replace(described(engine, url), added=True))
        except Conflict as error:
            raise conflict(str(error)) from None
        await fleet.refresh()
        return await self._row(engine.name)

    @endpoint("GET", ENGINE, OPERATOR)
    async def one(self, name: str) -> object:
        """Describe a replica."""
        return await self._row(name)

    @endpoint("DELETE", ENGINE, OPERATOR, status=202)
    async def remove(self, name: str) -> object:
        """Stop sending requests to a replica, and remove it once no gateway has a request there."""
        replica = self._known(name)
        if replica.record.launched:
            raise conflict(f"Ratchet launched {name!r} itself; take it out of the configuration, or drain it.")
        await self._set_desired(name, "remove")
        return (await self._rows(replica))[0]

    @endpoint("POST", ENGINE + "/drain", OPERATOR)
    async def drain(self, name: str, body: DrainRequest) -> object:
        """Stop sending new requests to a replica, or start again. Requests that it has finish."""
        await self._set_desired(name, "drain" if body.drain else "serve")
        return await self._row(name)

    def _known(self, name: str) -> Replica:
        """The replica of that name. ApiError 404."""
        found = self.services.fleet.replicas.get(name) if names.is_name(name) else None
        if found is None:
            raise not_found(f"There is no engine {name[:63]!r}.", "engine", "engine_not_found")
        return found

    async def _set_desired(self, name: str, desired: Literal["serve", "drain", "remove"]) -> None:
        self._known(name)
        try:
            await self.services.store.fleet.want(name, desired)
        except Conflict as error:
            raise conflict(str(error)) from None
        await self.services.fleet.refresh()

    async def _row(self, name: str) -> dict[str, Any]:
        return (await self._rows(self._known(name)))[0]

    async def _rows(self, *replicas: Replica) -> list[dict[str, Any]]:
        """The replicas as operators see them, with the load of all workers."""
        load = await self.services.worker_pool.load()
        return [_shown(replica, *load.get(replica.name, (0, 0))) for replica in replicas]


def _shown(replica: Replica, requests: int, tokens: float) -> dict[str, Any]:
    """`requests`, `tokens`: what the other workers have there."""
    now = monotonic()
    return {
        **{key: getattr(replica.record, key) for key in RECORDED},
        "healthy": replica.healthy,
        "adapters": replica.adapters,
        "inflight": replica.total + requests,
        "tokens": replica.tokens + tokens,
        "breaker": replica.breaker.state(now),
        "ejected": replica.out_until > now,
        "paused": replica.paused_until > now,
    }


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
    try:
        services.config.check_brings(engine)
    except ValueError as error:
        raise invalid(f"{error}.", "kind") from None
    for param in ("served_name", "api_key", "adapters_at"):
        text = getattr(engine, param)
        if text is not None and not (0 < len(text) <= LONGEST and text.isascii() and text.isprintable()):
            raise invalid(f"Invalid value for {param!r}: 1-{LONGEST} printable ASCII characters.", param)
    return engine
