"""Send a request to a replica; until its first byte, a failure is another replica's chance."""

from __future__ import annotations

import asyncio
import math
from types import SimpleNamespace
from typing import Any

import aiohttp

from gateway import chat
from gateway.catalog import Catalog, Target
from gateway.errors import ApiError, no_model, unavailable
from gateway.exchange import Exchange, message_of
from gateway.routing.fleet import Fleet
from gateway.routing.replica import Replica
from gateway.routing.router import pick
from gateway.table import CHAT
from ratchet.clock import monotonic
from ratchet.config import GatewayConfig
from ratchet.errors import EngineBroken, EngineUnavailable

KEEPALIVE_SECONDS = 3.0
"""Less than uvicorn's 5 s (under vLLM), so that a pooled connection is not closed just as it is used."""
CHUNK = 2**16
MAX_ANSWER = 2**28
TRIES = 2
NOT_OURS = frozenset({401, 403, 405, 407, 411, 415})
"""Statuses that tell of the gateway's own standing with the engine, not of the client's request."""


class Answer:
    """An engine's answer that has begun: `first` are its first bytes. From here on no other replica is asked."""

    def __init__(self, replica: Replica, model: str, response: aiohttp.ClientResponse, first: bytes) -> None:
        self.replica = replica
        self.first = first
        self._model = model
        self._response = response

    async def more(self) -> bytes:
        """The next bytes; b"" at the end."""
        return await self._response.content.readany()

    async def whole(self, idle_seconds: float) -> bytes:
        """All of an answer that is no stream. EngineBroken if it breaks off, falls silent for `idle_seconds` or has no end."""
        parts, size = [self.first], len(self.first)
        try:
            while size <= MAX_ANSWER:
                async with asyncio.timeout(idle_seconds):
                    chunk = await self.more()
                if not chunk:
                    return b"".join(parts)
                parts.append(chunk)
                size += len(chunk)
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            raise EngineBroken(f"the engine broke off its answer: {error or type(error).__name__}") from error
        raise EngineBroken("the engine's answer has no end")

    def answered(self) -> None:
        """It came whole."""
        self.replica.answered()

    def broke(self) -> None:
        """It did not: a failure of its replica, which has to prove again that it generates."""
        self.replica.failures += 1
        self.replica.generated = -math.inf

    def close(self) -> None:
        """Ends it; an engine still busy with it stops."""
        self._response.close()
        self.replica.leave(self._model)


class Upstream:
    """The pool of connections to all replicas."""

    def __init__(self, fleet: Fleet, catalog: Catalog, config: GatewayConfig) -> None:
        self._fleet = fleet
        self._catalog = catalog
        self._config = config
        trace = aiohttp.TraceConfig()
        trace.on_request_headers_sent.append(_sent)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_SECONDS),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=config.connect_seconds),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("user-agent", "accept-encoding"),
            read_bufsize=CHUNK,
            trace_configs=[trace],
        )

    async def close(self) -> None:
        await self._session.close()

    async def ask(self, exchange: Exchange) -> Answer:
        """The answer of a replica that has sent its first byte, on the second try at the latest.

        ApiError: the engine's own 4xx, 404 for a pinned version that no replica holds, 502 or 503 where none answers.
        """
        tried: set[str] = set()
        fault: EngineUnavailable | None = None
        for _ in range(TRIES):
            replica = pick(self._fleet.all(), exchange.target, tried)
            if replica is None and fault is not None and isinstance(fault.__cause__, aiohttp.ServerDisconnectedError):
                # A pooled connection that the engine had just closed: the only replica is as good as another.
                replica = pick(self._fleet.all(), exchange.target)
            if replica is None:
                break
            tried.add(replica.name)
            try:
                return await self._begin(replica, exchange)
            except EngineUnavailable as error:
                fault = error
        raise self._none(exchange.target, fault)

    def _none(self, target: Target, fault: EngineUnavailable | None) -> ApiError:
        if fault is not None:
            return unavailable(f"No engine answered: {fault}", "engine_unavailable")
        if target.adapter is not None and not self._live(target) and pick(self._fleet.all(), Target(target.base)) is not None:
            return no_model(target.label)
        return unavailable(f"No engine serves {target.model!r} now.", "engine_unavailable")

    def _live(self, target: Target) -> bool:
        pointer = self._catalog.pointer(target.policy)
        return pointer is not None and pointer.live == target.version

    async def _begin(self, replica: Replica, exchange: Exchange) -> Answer:
        model = exchange.target.adapter or replica.served
        replica.enter(model)
        exchange.seen.asks(replica)
        response: aiohttp.ClientResponse | None = None
        try:
            async with asyncio.timeout(self._config.first_byte_seconds):
                response = await self._post(replica, exchange, model)
                if response.status != 200:
                    await self._refused(replica, exchange, response)
                first = await response.content.readany()
            if not first:
                raise EngineUnavailable(f"{replica.name} closed the connection before its answer")
        except aiohttp.ClientConnectorError as error:
            replica.lost()
            replica.leave(model)
            exchange.seen.missed("ClientConnectorError")
            raise EngineUnavailable(f"{replica.name} does not connect") from error
        except (aiohttp.ClientError, TimeoutError, ConnectionError, EngineUnavailable) as error:
            self._drop(replica, model, response)
            exchange.seen.missed(type(error).__name__)
            raise error if isinstance(error, EngineUnavailable) else EngineUnavailable(f"{replica.name} gave no answer") from error
        except BaseException:
            self._drop(replica, model, response)
            raise
        exchange.engine, exchange.launched = replica.name, replica.record.launched
        return Answer(replica, model, response, first)

    def _drop(self, replica: Replica, model: str, response: aiohttp.ClientResponse | None) -> None:
        if response is not None:
            response.close()
        replica.leave(model)

    async def _post(self, replica: Replica, exchange: Exchange, model: str) -> aiohttp.ClientResponse:
        extras = replica.engine.extras(exchange.tree, exchange.wants) if exchange.kept or exchange.admission.counts_tokens else {}
        return await self._session.post(
            replica.record.url.rstrip("/") + CHAT,
            data=chat.upstream(exchange.tree, model, extras),
            headers={"content-type": "application/json", **exchange.seen.carried(exchange.trace), **replica.engine.headers(exchange.id)},
            allow_redirects=False,
            trace_request_ctx=exchange,
        )

    async def _refused(self, replica: Replica, exchange: Exchange, response: aiohttp.ClientResponse) -> None:
        """Raises the engine's error status as what it means here."""
        message, param = message_of(await response.content.read(CHUNK))
        status, adapter = response.status, exchange.target.adapter
        if status == 404 and adapter is not None:
            replica.forget(adapter)
            raise EngineUnavailable(f"{replica.name} no longer holds {adapter}")
        if status in (429, 503):
            raise EngineUnavailable(f"{replica.name} is overloaded")
        if 400 <= status < 500 and status not in NOT_OURS:
            raise ApiError(status, message, param=param, code="engine_refused")
        raise EngineUnavailable(f"{replica.name} answered {status}")


async def _sent(_: aiohttp.ClientSession, context: SimpleNamespace, __: Any) -> None:
    exchange = context.trace_request_ctx
    if exchange.dispatched is None:  # what follows a first failure is the engine's doing
        exchange.dispatched = monotonic()
