"""The connections to the engines, as those come and go."""

from __future__ import annotations

import asyncio

from gateway.relay.upstream import Upstream
from ratchet.config import GatewayConfig
from ratchet.tasks import end
from tests.integration.gateway.scripted_server import DEADLINE, HELLO, begin, post, serving, stay
from tests.unit.routing.test_router import Listed, replica


async def test_the_idle_connections_to_an_engine_that_was_removed_are_closed_and_no_others() -> None:
    async with serving(begin, HELLO, stay) as gone, serving(HELLO, HELLO, stay) as there, asyncio.timeout(DEADLINE):
        fleet = Listed([replica("gone", url=gone.url), replica("there", url=there.url)])
        made = Upstream(GatewayConfig(), fleet)
        tending = asyncio.create_task(made.run())
        removed, stays = (made._pool(engine) for engine in fleet.all())
        running = await removed.post("/v1/x", b"{}", {})
        assert await running.head() == 200
        assert [await post(removed), await post(stays)] == [(200, b"hello")] * 2
        del fleet.replicas["gone"]
        await gone.client_closed.wait()
        assert await running.read() == b"hel"
        running.close()
        assert made._pool(fleet.replicas["there"]) is stays
        assert await post(stays) == (200, b"hello")
        assert len(there.connections) == 1
        await made.close()
        await end([tending])
