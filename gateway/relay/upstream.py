"""Send a request to a replica and wait for the first bytes of its answer."""

from __future__ import annotations

import asyncio

from gateway.errors import out_of_time
from gateway.relay.answer import Answer
from gateway.relay.exchange import Exchange
from gateway.relay.refusal import Busy, ConnectionBroke, NoAdapter, NoRoute, StaleConnection, Unsupported, refusal
from gateway.relay.transport import Closed, NotConnected, Pool, Response, TransportError
from gateway.routing.fleet import Fleet
from gateway.routing.replica import Replica
from ratchet.clock import monotonic
from ratchet.config import GatewayConfig
from ratchet.errors import EngineUnavailable, EngineUnsupported

MAX_ERROR_BYTES = 2**16
"""Bytes of an error answer that are read."""
LOOK_SECONDS = 0.25
"""Seconds between two looks at the answers that have not begun; a limit may be passed by as much."""


class Upstream:
    """The connections to all replicas."""

    def __init__(self, config: GatewayConfig, fleet: Fleet) -> None:
        self._config = config
        self._fleet = fleet
        self._pools: dict[str, Pool] = {}
        self._awaited: dict[Response, float] = {}
        """Answers that have not begun, with the times by which they must."""

    async def run(self) -> None:
        """Give up answers that do not begin in time, and connections to replicas that were removed. Runs for ever.

        One look at all of them costs less than a timer for each.
        """
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            now = monotonic()
            for response in [response for response, due in self._awaited.items() if due < now]:
                response.fail(TransportError("it gave no first byte in time"))
            for url in self._pools.keys() - {replica.record.url for replica in self._fleet.all()}:
                self._pools.pop(url).close()  # requests that are still running there go on

    async def close(self) -> None:
        for pool in self._pools.values():
            pool.close()

    async def begin(self, replica: Replica, exchange: Exchange, tokens: int) -> Answer:
        """Send the request to `replica`, which gets `tokens` more load, and wait for the first bytes of its answer.

        ApiError: the engine's own 4xx, or 504 past `total_seconds`. EngineUnavailable: it gave no answer; refusal.py has the kinds.
        """
        model = exchange.target.adapter or replica.served
        hold, late = replica.enter(model, tokens), exchange.request.started + self._config.total_seconds
        exchange.request.observation.attempt_started(replica)
        response: Response | None = None
        try:
            response = await self._post(replica, exchange, model)
            self._awaited[response] = min(monotonic() + self._config.first_byte_seconds, late)
            if (status := await response.head()) != 200:
                raise refusal(replica, model, status, response.headers, await _error_body(response))
            first = await response.read()
            if not first:
                raise EngineUnavailable(f"{replica.name} closed the connection before its answer")
        except BaseException as error:
            if response is not None:
                response.close()
            hold.leave()
            if isinstance(error, TransportError) and monotonic() >= late:
                raise out_of_time() from error
            fault = self._account_for(replica, exchange, error)
            if isinstance(fault, EngineUnavailable):
                exchange.request.observation.attempt_failed(replica, type(error).__name__)
            if fault is error:
                raise
            raise fault from error
        finally:
            if response is not None:
                self._awaited.pop(response, None)
        replica.began(exchange.request.path)
        return Answer(hold, response, first)

    def _account_for(self, replica: Replica, exchange: Exchange, error: BaseException) -> BaseException:
        """Note in the replica's state what went wrong there, and return the error to raise for it."""
        match error:
            case NoAdapter():
                replica.forget(exchange.target.adapter or "")
            case EngineUnsupported():
                return Unsupported(str(error))
            case NoRoute():
                replica.lacks_route(exchange.request.path)
            case Busy():
                replica.pause(min(error.seconds, self._config.routing.retry.max_pause_seconds), error.status)
            case NotConnected():
                replica.lost()
                return EngineUnavailable(f"{replica.name} does not connect")
            case EngineUnavailable():
                replica.failed()
            case Closed(reused=True):
                self._pool(replica).close_idle()  # the others are as old; what a new connection does counts
                return StaleConnection(f"{replica.name} gave no answer")
            case TransportError():
                replica.failed()
                kind = ConnectionBroke if isinstance(error, Closed) else EngineUnavailable
                return kind(f"{replica.name} gave no answer")
        return error

    async def _post(self, replica: Replica, exchange: Exchange, model: str) -> Response:
        request, record = exchange.request, exchange.to_record or exchange.admission.counts_tokens
        sent = replica.wire.request(request.path, exchange.ask.sent, model=model, public_id=request.id, record=record)
        headers = {**request.observation.trace_headers(replica, request.trace), **replica.authorization, **sent.headers}
        response = await self._pool(replica).post(sent.path, sent.body, headers)
        exchange.dispatched()
        return response

    def _pool(self, replica: Replica) -> Pool:
        url = replica.record.url
        pool = self._pools.get(url)
        if pool is None:
            pool = self._pools[url] = Pool(url, self._config.connect_seconds)
        return pool


async def _error_body(response: Response) -> bytes:
    """The beginning of an error answer."""
    body = b""
    while len(body) < MAX_ERROR_BYTES and (chunk := await response.read()):
        body += chunk
    return body
