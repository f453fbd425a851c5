"""Send a request to one replica, and its answer's bytes as they come."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import aiohttp

from gateway import chat
from gateway.errors import out_of_time
from gateway.exchange import Exchange
from gateway.refusal import Busy, NoAdapter, NoRoute, Stale, refusal
from gateway.routing.replica import Hold, Replica
from ratchet.clock import monotonic
from ratchet.config import GatewayConfig
from ratchet.errors import EngineBroken, EngineUnavailable

KEEPALIVE_SECONDS = 3.0
"""Less than uvicorn's 5 s (under vLLM), so that a pooled connection is not closed just as it is used."""
CHUNK = 2**16
MAX_ANSWER = 2**28


class Answer:
    """An engine's answer that has begun: `first` are its first bytes, `seconds` what it may still take. No other replica is asked now."""

    def __init__(self, hold: Hold, response: aiohttp.ClientResponse, first: bytes, seconds: float) -> None:
        self.replica = hold.replica
        self.first = first
        self._hold = hold
        self._response = response
        self._whole: bytes | None = None
        self._late = False
        self._timer = asyncio.get_running_loop().call_later(seconds, self._expire)

    async def more(self) -> bytes:
        """The next bytes; b"" at the end."""
        return await self._response.content.readany()

    async def whole(self, idle_seconds: float) -> bytes:
        """All of an answer that is no stream. EngineBroken if it breaks off, falls silent for `idle_seconds` or has no end."""
        if self._whole is None:
            self._whole = await self._read(idle_seconds)
        return self._whole

    async def _read(self, idle_seconds: float) -> bytes:
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
        """It did not: a failure of its replica, which has to prove again that it generates; unless its time was over."""
        if not self._late:
            self.replica.broke()

    def close(self) -> None:
        """Ends it; an engine still busy with it stops."""
        self._timer.cancel()
        self._response.close()
        self._hold.leave()

    def _expire(self) -> None:
        """`total_seconds` are over: whoever reads on meets a broken answer."""
        self._late = True
        self._response.close()


class Upstream:
    """The pool of connections to all replicas."""

    def __init__(self, config: GatewayConfig) -> None:
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

    async def begin(self, replica: Replica, exchange: Exchange, tokens: int) -> Answer:
        """Sends the request to `replica`, where it reserves `tokens`, and returns once the answer's first bytes are here.

        ApiError: the engine's own 4xx, or 504 past `total_seconds`. EngineUnavailable: it gave no answer; refusal.py says which kinds.
        """
        model = exchange.target.adapter or replica.served
        hold, late = replica.enter(model, tokens), exchange.started + self._config.total_seconds
        exchange.seen.asks(replica)
        response: aiohttp.ClientResponse | None = None
        try:
            async with asyncio.timeout(min(self._config.first_byte_seconds, late - monotonic())):
                response = await self._post(replica, exchange, model)
                if response.status != 200:
                    raise refusal(replica.name, model, response.status, response.headers, await response.content.read(CHUNK))
                first = await response.content.readany()
            if not first:
                raise EngineUnavailable(f"{replica.name} closed the connection before its answer")
        except BaseException as error:
            if response is not None:
                response.close()
            hold.leave()
            if isinstance(error, TimeoutError) and monotonic() >= late:
                raise out_of_time() from error
            fault = self._fault(replica, exchange, error)
            if isinstance(fault, EngineUnavailable):
                exchange.seen.missed(replica, type(error).__name__)
            if fault is error:
                raise
            raise fault from error
        replica.began(exchange.path)
        return Answer(hold, response, first, late - monotonic())

    def _fault(self, replica: Replica, exchange: Exchange, error: BaseException) -> BaseException:
        """What went wrong, after the replica was told; whatever is not about the replica as it is."""
        match error:
            case NoAdapter():
                replica.forget(exchange.target.adapter or "")
            case NoRoute():
                replica.lacks_route(exchange.path)
            case Busy():
                replica.pause(min(error.seconds, self._config.routing.retry.max_pause_seconds), error.status)
            case aiohttp.ClientConnectorError():
                replica.lost()
                return EngineUnavailable(f"{replica.name} does not connect")
            case EngineUnavailable():
                replica.failed()
            case aiohttp.ServerDisconnectedError():
                replica.failed()
                return Stale(f"{replica.name} gave no answer")
            case aiohttp.ClientError() | TimeoutError() | ConnectionError():
                replica.failed()
                return EngineUnavailable(f"{replica.name} gave no answer")
        return error

    async def _post(self, replica: Replica, exchange: Exchange, model: str) -> aiohttp.ClientResponse:
        extras = replica.engine.extras(exchange.tree, exchange.wants) if exchange.kept or exchange.admission.counts_tokens else {}
        return await self._session.post(
            replica.record.url.rstrip("/") + exchange.path,
            data=chat.upstream(exchange.tree, model, extras),
            headers={
                "content-type": "application/json",
                **exchange.seen.carried(replica, exchange.trace),
                **replica.engine.headers(exchange.id),
            },
            allow_redirects=False,
            trace_request_ctx=exchange,
        )


async def _sent(_: aiohttp.ClientSession, context: SimpleNamespace, __: Any) -> None:
    exchange = context.trace_request_ctx
    if exchange.dispatched is None:  # what follows a first failure is the engine's doing
        exchange.dispatched = monotonic()
