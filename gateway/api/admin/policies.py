"""`/admin/policies`: policies and their versions, which version is live, and a step of training on request."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from gateway.api.admin import live_version
from gateway.api.endpoint import Handlers, as_list, endpoint
from gateway.api.table import OPERATOR
from gateway.dialects.schema import INT32, Strict
from gateway.errors import not_found
from ratchet.errors import AdapterError
from ratchet.types import PolicyRecord, PolicyVersionRecord

POLICY = "/admin/policies/{name}"
POINTER = ("name", "base", "live", "epoch", "step")
"""The fields of a policy's record that are shown."""
Version = Annotated[int, Meta(ge=0, le=INT32)]


class PromoteRequest(Strict):
    """`POST /admin/policies/{name}/promote`."""

    version: Version


class RollbackRequest(Strict):
    """`POST /admin/policies/{name}/rollback`; null: the version that was live before."""

    to: Version | None = None


class Policies(Handlers):
    @endpoint("GET", "/admin/policies", OPERATOR)
    async def every(self) -> object:
        """List policies with their versions and their learners' status."""
        return as_list([await self._described(record) for record in await self.services.store.registry.policies()])

    @endpoint("GET", POLICY, OPERATOR)
    async def one(self, name: str) -> object:
        """Describe a policy."""
        return await self._described(await live_version.policy(self.services, name))

    @endpoint("GET", POLICY + "/versions/{version}", OPERATOR)
    async def version(self, name: str, version: str) -> object:
        """Describe a version of a policy, with the manifest of its adapter."""
        await live_version.policy(self.services, name)
        number = int(version) if version.isascii() and version.isdigit() and len(version) < 10 else None
        found = await self.services.store.registry.version(name, number) if number is not None else None
        if found is None:
            raise not_found("The policy has no such version.", "version")
        return {**msgspec.to_builtins(found), "manifest": await self._manifest(found)}

    @endpoint("POST", POLICY + "/promote", OPERATOR)
    async def promote(self, name: str, body: PromoteRequest) -> object:
        """Make a version live."""
        return _pointer(await live_version.change(self.services, name, body.version, "promote"))

    @endpoint("POST", POLICY + "/rollback", OPERATOR)
    async def rollback(self, name: str, body: RollbackRequest) -> object:
        """Make an earlier version live again, by default the one that was live before."""
        to = body.to if body.to is not None else await live_version.previous(self.services, name)
        return _pointer(await live_version.change(self.services, name, to, "rollback"))

    @endpoint("POST", POLICY + "/train", OPERATOR)
    async def train(self, name: str) -> object:
        """Ask the learner for a step of training soon."""
        await live_version.policy(self.services, name)
        return {"job": await self.services.store.registry.request_training(name)}

    async def _described(self, record: PolicyRecord) -> dict[str, Any]:
        registry = self.services.store.registry
        return {**_pointer(record), "versions": await registry.versions(record.name), "status": await registry.status(record.name)}

    async def _manifest(self, record: PolicyVersionRecord) -> Any:
        if not record.path or record.policy not in self.services.config.policies:
            return None
        try:
            return await self.services.adapter_cache.manifest(record)
        except AdapterError as error:
            return {"error": str(error)}


def _pointer(record: PolicyRecord) -> dict[str, Any]:
    return {key: getattr(record, key) for key in POINTER}
