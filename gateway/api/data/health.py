"""`/healthz` and `/readyz`."""

from __future__ import annotations

from gateway.api.endpoint import Handlers, endpoint
from gateway.api.table import PUBLIC
from gateway.errors import unavailable


class Health(Handlers):
    @endpoint("GET", "/healthz", PUBLIC)
    async def live(self) -> object:
        """Whether the process is alive."""
        return {"status": "ok"}

    @endpoint("GET", "/readyz", PUBLIC)
    async def ready(self) -> object:
        """Whether requests can be answered: 503 while no engine can, or while the gateway shuts down. The store does not matter."""
        if self.services.relay.draining:
            raise unavailable("The gateway is shutting down.", "draining")
        if not (self.services.fleet.ready and self.services.worker_pool.engines_found):
            raise unavailable("No engine can answer yet.", "engine_unavailable")
        return {"status": "ready"}
