"""Choose the replicas that a request is sent to, until one answers.

Before the first byte of an answer, a failure that is not the client's own fault leads to another replica, within the retry budget. If no
replica can serve a policy's live version, its fallbacks are tried.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

from gateway.catalog import Catalog, Target
from gateway.errors import ApiError, invalid, no_model, unavailable
from gateway.relay.answer import Answer
from gateway.relay.exchange import Exchange
from gateway.relay.refusal import Busy, ConnectionBroke, NotServed, StaleConnection, Unsupported
from gateway.routing.budget import Budget, Ticket
from gateway.routing.fleet import Fleet
from gateway.routing.replica import Replica
from gateway.routing.router import Router
from gateway.routing.strategies import Context
from gateway.telemetry.metrics import Metrics
from ratchet.config import GatewayConfig
from ratchet.errors import EngineBroken, EngineUnavailable

MAX_BROKEN = 2
"""Connections that may break under one request before it is given up, since it may be what crashes the engines."""
Begin = Callable[[Replica, Exchange, int], Awaitable[Answer]]
"""Upstream.begin."""


class Dispatcher:
    """Sends all inference requests of a gateway to replicas."""

    def __init__(self, begin: Begin, fleet: Fleet, catalog: Catalog, config: GatewayConfig, metrics: Metrics) -> None:
        self.router = Router(fleet, config.routing, metrics)
        self._begin = begin
        self._fleet = fleet
        self._catalog = catalog
        self._config = config
        self._metrics = metrics
        self._budget = Budget(config.routing.retry)

    async def dispatch(self, exchange: Exchange) -> Answer:
        """Return the answer of a replica that has sent its first byte. `exchange.target` is what it answers for.

        ApiError: the engine's own 4xx; 404 for a pinned version that no replica holds; 400 for a route that none has; 429 or 503 if all
        ask for a pause; 502 or 503 if none answers.
        """
        requested = exchange.target
        with self._budget.request() as ticket:
            answer, fault = await self._try_replicas(exchange, ticket)
            for target in self._fallbacks(requested, exchange) if answer is None else ():
                exchange.redirect(target)
                answer, _ = await self._try_replicas(exchange, ticket)
                if answer is not None:
                    self._metrics.fallbacks.labels(requested.policy).inc()
                    break
        if answer is None:
            exchange.redirect(requested)
            raise self._no_answer(exchange, fault)
        exchange.request.observation.answered_by(exchange.target, answer.replica)
        return answer

    async def _try_replicas(self, exchange: Exchange, ticket: Ticket) -> tuple[Answer | None, EngineUnavailable | None]:
        """Return the answer of the first replica that gives one, or why the last one gave none."""
        request = exchange.request
        context = self.router.context(exchange.ask.tree, request.size, request.session, request.episode, exchange.target)
        attempt = _Attempt(self.router, exchange, context, ticket, self._metrics)
        tries = 0
        fault: EngineUnavailable | None = None
        while ticket.broken < MAX_BROKEN and (replica := attempt.next(fault, first=tries == 0)) is not None:
            try:
                return await self._send(replica, attempt), None
            except NotServed as error:
                fault = error
                self._metrics.retries.labels("moved").inc()
            except EngineUnavailable as error:
                fault, tries = error, tries + 1
                if tries >= self._config.routing.retry.tries:
                    break
        return None, fault

    async def _send(self, replica: Replica, attempt: _Attempt) -> Answer:
        exchange, seconds = attempt.exchange, self._config.routing.hedge_seconds
        if seconds is None or exchange.ask.stream or exchange.ask.expected > 1:
            return await self._one(replica, attempt)
        return await self._hedged(replica, attempt, seconds)

    async def _one(self, replica: Replica, attempt: _Attempt) -> Answer:
        try:
            return await self._begin(replica, attempt.exchange, attempt.context.tokens)
        except ConnectionBroke:
            attempt.ticket.broken += 1
            raise

    async def _hedged(self, replica: Replica, attempt: _Attempt, seconds: float) -> Answer:
        """Return the whole answer of `replica`, or, if that takes longer than `seconds`, the first of it and another replica."""
        tasks, answer = [asyncio.create_task(self._whole(replica, attempt))], None
        try:
            await asyncio.wait(tasks, timeout=seconds)
            other = None if tasks[0].done() or attempt.ticket.broken else attempt.next(None, first=False)
            if other is not None:
                tasks.append(asyncio.create_task(self._whole(other, attempt)))
            answer = await _first(tasks)
            if other is not None:
                self._metrics.hedges.labels("second" if answer.replica is other else "first").inc()
            return answer
        finally:
            for task in tasks:  # not awaited: a disconnect would cancel the wait, and the answers would never be closed
                task.cancel()
                task.add_done_callback(lambda done: _close_unless(done, answer))

    async def _whole(self, replica: Replica, attempt: _Attempt) -> Answer:
        answer = await self._one(replica, attempt)
        try:
            async with asyncio.timeout(self._config.idle_seconds):
                await answer.whole()
        except (EngineBroken, TimeoutError) as error:
            answer.broke()
            answer.close()
            raise EngineUnavailable(f"{replica.name} broke off its answer") from error
        except BaseException:
            answer.close()
            raise
        return answer

    def _fallbacks(self, target: Target, exchange: Exchange) -> Iterator[Target]:
        """What may answer in place of the live version, which no replica can serve."""
        steps = self._config.routing.fallback.get(target.policy, ())
        if exchange.ask.model != target.policy:
            return  # a base, or pinned
        for step in steps:
            version = self._catalog.previous(target.policy) if step == "previous" else 0 if step == "base" else step
            found = target._replace(version=version) if version is not None else target
            if self._fleet.serves(target):
                return  # some replica can serve it after all: the requests merely failed
            if found != target and self._catalog.good(found):
                yield found

    def _no_answer(self, exchange: Exchange, fault: EngineUnavailable | None) -> ApiError:
        """The error for a request that no replica answered."""
        target = exchange.target
        path = exchange.request.path
        if self.router.lacks(target, path):
            return invalid(f"No engine of {target.base!r} offers {path}.", "model", "unsupported_route")
        pause = self.router.pause(target, path)
        if pause is not None:
            status, seconds = pause
            return ApiError(status, "Every engine is overloaded; try again later.", code="engine_overloaded", retry_after=seconds)
        if isinstance(fault, Unsupported):
            return ApiError(501, f"No engine of {target.base!r} can do this: {fault}.", code="not_implemented")
        if fault is not None:
            return unavailable(f"No engine answered: {fault}", "engine_unavailable")
        if target.adapter is not None and not self._catalog.is_live(target) and self._fleet.serves(Target(target.base)):
            return no_model(target.label)
        return unavailable(f"No engine serves {target.model!r} now.", "engine_unavailable")


class _Attempt:
    """A request for one target, and the replicas that it was sent to."""

    def __init__(self, router: Router, exchange: Exchange, context: Context, ticket: Ticket, metrics: Metrics) -> None:
        self.exchange = exchange
        self.context = context
        self._router = router
        self.ticket = ticket
        self._metrics = metrics
        self._tried: set[str] = set()

    def next(self, fault: EngineUnavailable | None, *, first: bool) -> Replica | None:
        """The next replica to try, after `fault`. None if there is none, or if the retry budget does not allow it."""
        target, path = self.exchange.target, self.exchange.request.path
        replica = self._router.pick(target, path, self.context, self._tried)
        if replica is None and isinstance(fault, StaleConnection):
            replica = self._router.pick(target, path, self.context)  # the same replica again, on a new connection
        if replica is None:
            return None
        if not first:
            if not self.ticket.take():
                self._metrics.retries.labels("refused").inc()
                return None
            self._metrics.retries.labels("busy" if isinstance(fault, Busy) else "failed" if fault is not None else "hedged").inc()
        self._tried.add(replica.name)
        return replica


def _close_unless(task: asyncio.Task[Answer], kept: Answer | None) -> None:
    """Close the answer of a task, unless it is the one that is `kept`."""
    if not task.cancelled() and task.exception() is None and task.result() is not kept:
        task.result().close()


async def _first(tasks: list[asyncio.Task[Answer]]) -> Answer:
    """The result of the first task that succeeds, or the first error about the request itself; else the last error."""
    waiting = set(tasks)
    while True:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        ended = sorted(done, key=lambda task: task.exception() is not None)
        for task in ended:
            if task.exception() is None or isinstance(task.exception(), ApiError):
                return task.result()
        if not waiting:
            return ended[-1].result()
