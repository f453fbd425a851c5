"""A small OpenTelemetry collector that takes traces over HTTP as protobuf."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.trace.v1.trace_pb2 import Span

DEADLINE = 20.0


class Collector:
    """The spans that were exported to it, in the order of their arrival."""

    def __init__(self) -> None:
        self.url = ""
        self.spans: list[Span] = []
        self.resource: dict[str, Any] = {}
        self._more = asyncio.Condition()

    async def take(self, request: web.Request) -> web.Response:
        message = ExportTraceServiceRequest.FromString(await request.read())
        async with self._more:
            for group in message.resource_spans:
                self.resource = attributes(group.resource)
                self.spans += [span for scope in group.scope_spans for span in scope.spans]
            self._more.notify_all()
        return web.Response(body=ExportTraceServiceResponse().SerializeToString(), content_type="application/x-protobuf")

    async def trace(self, trace_id: str) -> list[Span]:
        """Return the spans of a trace, once the server's own span, which ends last, has arrived."""

        def whole() -> bool:
            return any(span.kind == Span.SPAN_KIND_SERVER for span in self._of(trace_id))

        await self._until(whole)
        return self._of(trace_id)

    async def _until(self, true: Callable[[], bool]) -> None:
        async with self._more:
            await asyncio.wait_for(self._more.wait_for(true), DEADLINE)

    def _of(self, trace_id: str) -> list[Span]:
        return [span for span in self.spans if span.trace_id.hex() == trace_id]


def attributes(holder: Any) -> dict[str, Any]:
    """The attributes of a span, an event or a resource."""
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in holder.attributes}


@asynccontextmanager
async def collector() -> AsyncIterator[Collector]:
    """Run a collector on a free port of this machine."""
    running = Collector()
    app = web.Application()
    app.add_routes([web.post("/v1/traces", running.take)])
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        running.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield running
    finally:
        await runner.cleanup()
