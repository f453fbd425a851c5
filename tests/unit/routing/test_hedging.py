"""A request sent to two replicas, left by its client at any moment."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.relay.answer import Answer
from gateway.relay.dispatch import Dispatcher
from gateway.relay.exchange import Exchange
from gateway.relay.transport import Response
from gateway.routing.replica import Replica
from gateway.telemetry.metrics import Metrics
from ratchet.config import GatewayConfig
from tests.unit.routing.test_router import Listed, replica

STEPS = 30
"""More turns of the event loop than a hedged request takes here."""


async def begin(asked: Replica, _: Exchange, tokens: int) -> Answer:
    """An engine that has answered by the next turn of the event loop."""
    hold = asked.enter("small", tokens)
    response = Response(cast(Any, None), reused=False)
    response.head_received(200, {})
    try:
        await asyncio.sleep(0)
    except BaseException:
        hold.leave()
        raise
    asyncio.get_running_loop().call_soon(response.completed)
    return Answer(hold, response, b"{}")


@pytest.mark.parametrize("seconds", [0.0, 60.0])
async def test_a_hedged_request_whose_client_leaves_at_any_moment_leaves_nothing_in_a_replicas_hands(seconds: float) -> None:
    made = [replica("a"), replica("b")]
    dispatcher = Dispatcher(begin, Listed(made), cast(Any, None), GatewayConfig(), Metrics())
    for steps in range(STEPS):
        ticket, context = SimpleNamespace(broken=0), SimpleNamespace(tokens=7)
        attempt = SimpleNamespace(exchange=None, context=context, ticket=ticket, next=lambda *_, **__: made[1])
        task = asyncio.create_task(dispatcher._hedged(made[0], cast(Any, attempt), seconds))
        for _ in range(steps):
            await asyncio.sleep(0)
        if not task.cancel():
            task.result().close()
        else:
            await asyncio.wait({task})
            assert task.cancelled()
        for _ in range(STEPS):
            await asyncio.sleep(0)
        assert [(one.total, one.tokens) for one in made] == [(0, 0), (0, 0)], steps
