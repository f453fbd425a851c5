"""Counts over everything: Prometheus' metrics, the ledger of feedback, the stored answers."""

from __future__ import annotations

from fastapi.responses import Response

from gateway.api.endpoint import Handlers, endpoint
from gateway.api.table import METRICS, OPERATOR

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


class Counts(Handlers):
    @endpoint("GET", "/metrics", METRICS, media_types=("text/plain",))
    async def metrics(self) -> object:
        """The metrics of all workers, in Prometheus' text format."""
        return Response(await self.services.worker_pool.metrics_text(), headers={"content-type": PROMETHEUS})

    @endpoint("GET", "/admin/ledger", OPERATOR)
    async def ledger(self) -> object:
        """Count all feedback by what became of it."""
        return await self.services.store.feedback.ledger()

    @endpoint("GET", "/admin/interactions", OPERATOR)
    async def interactions(self) -> object:
        """Count the stored answers, and those that cannot be learned from by the reason."""
        store = self.services.store.interactions
        return {"count": await store.count(), "untrainable": await store.untrainable()}
