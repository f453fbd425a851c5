"""Inference requests and exchanges for the tests of what handles them."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from engines import Captured
from gateway.access.quota import UNLIMITED
from gateway.catalog import Target
from gateway.dialects.base import Ask
from gateway.dialects.chat import Chat
from gateway.record.recorder import NOTHING_TO_RECORD
from gateway.relay.answer import Answer
from gateway.relay.exchange import Exchange
from gateway.relay.request import InferenceRequest
from gateway.relay.transport import Response
from gateway.routing.replica import Replica
from gateway.server.client import ClientConnection
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.observe import Observer
from ratchet.clock import monotonic
from ratchet.config.telemetry import TelemetryConfig
from ratchet.types import EngineRecord, KeyRecord

SCOPE: dict[str, Any] = {"type": "http", "method": "POST", "headers": []}
CAPTURED = Captured([1], [], {"total_tokens": 3}, exact=True)
MESSAGES = [{"role": "user", "content": "Hello"}]


def inference_request(**fields: Any) -> InferenceRequest:
    """A chat request for `support@1` that began now and whose client has no connection, but for what `fields` say."""
    now = monotonic()

    async def send(message: Any) -> None:
        raise ConnectionError("there is no connection")

    standard: dict[str, Any] = {
        "id": "chatcmpl-" + "0" * 32,
        "caller": KeyRecord(id="key", tenant="acme", scopes=["infer"], created=0.0),
        "target": Target("small", "support", 1),
        "dialect": Chat(),
        "ask": Ask(tree={"messages": MESSAGES}, sent={"messages": MESSAGES}, model="support", stream=True),
        "trace": {},
        "episode": None,
        "observation": Observer(Metrics(), TelemetryConfig()).begin(None, SCOPE, "req_1"),
        "response_headers": [],
        "client": ClientConnection(cast(Any, None), cast(Any, None), cast(Any, None)),
        "send": send,
        "reserved_tokens": 100,
        "started": now,
        "parsed": now,
        "size": 40,
        "session": "",
        "during_swap": False,
        "cpu_seconds": 0.0,
    }
    return InferenceRequest(**(standard | fields))


def new_exchange(request: InferenceRequest | None = None, task: asyncio.Task[Any] | None = None) -> Exchange:
    """An exchange that was just received. Without a `task` it cannot be interrupted."""
    request = request or inference_request()
    return Exchange(request, request.ask, request.target, NOTHING_TO_RECORD, cast(Any, task))


def begun_answer() -> Answer:
    """The answer of an engine `a` that was launched by Ratchet; its connection is closed."""
    replica = Replica(EngineRecord("a", "fake", "small", "http://127.0.0.1:1", "small", launched=True))
    return Answer(replica.enter("support@1", 10), Response(cast(Any, None), reused=False), b"first bytes")


def exchange_reading(request: InferenceRequest | None = None, task: asyncio.Task[Any] | None = None) -> Exchange:
    """An exchange whose engine has begun its answer."""
    exchange = new_exchange(request, task)
    exchange.watch_client()
    exchange.admitted(UNLIMITED)
    exchange.begin_dispatching(exchange.request.ask)
    exchange.dispatched()
    exchange.begin_reading(begun_answer())
    return exchange
