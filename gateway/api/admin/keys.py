"""`/admin/keys`: the API keys. A key's secret is shown once, to whoever created it; the store has its sha256."""

from __future__ import annotations

import msgspec

from gateway.api.endpoint import Handlers, Id, as_list, endpoint
from gateway.api.table import OPERATOR
from gateway.errors import invalid, not_found
from ratchet.keys import KeySpec
from ratchet.types import KeyRecord


class Keys(Handlers):
    @endpoint("GET", "/admin/keys", OPERATOR)
    async def every(self) -> object:
        """List keys, without their secrets."""
        return as_list([shown(record) for record in await self.services.store.keys.all()])

    @endpoint("POST", "/admin/keys", OPERATOR)
    async def create(self, body: KeySpec) -> object:
        """Create a key. Its secret is in this answer and nowhere else."""
        if (fault := body.fault()) is not None:
            field, what = fault
            raise invalid(f"Invalid value for {field!r}: {what}.", field)
        key, stored, record = body.issue()
        await self.services.store.keys.put(stored, record)
        return {**shown(record), "key": key}

    @endpoint("DELETE", "/admin/keys/{id}", OPERATOR)
    async def revoke(self, item: Id) -> object:
        """Revoke a key."""
        if not await self.services.store.keys.revoke(item):
            raise not_found("There is no key of that id.", "id", "key_not_found")
        self.services.keys.forget(item)
        await self.services.worker_pool.forget_key(item)
        return {"id": item, "object": "key", "deleted": True}


def shown(record: KeyRecord) -> dict[str, object]:
    """A key as the API shows it."""
    return {"object": "key", **msgspec.to_builtins(record)}
