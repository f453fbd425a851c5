"""Limit the models, requests, tokens and concurrency of a key. They are counted in the store, over all gateways.

A key without quotas costs nothing here. One with quotas costs a round trip before its request, and one after it if its tokens or its
concurrency are limited. If the store does not answer in time, the request is let through: see docs/gateway.md.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Coroutine, Generator, Sequence
from typing import Any, TypeVar

from gateway.access.keys import may_use
from gateway.errors import ApiError, no_model, store_may_fail
from gateway.server.http import Header
from gateway.telemetry.metrics import Metrics
from ratchet import names
from ratchet.buffer.quotas import Ended, Quotas, QuotaState
from ratchet.clock import monotonic
from ratchet.config import QuotaConfig
from ratchet.errors import StoreError, StoreUnavailable
from ratchet.tasks import end
from ratchet.types import KeyRecord

T = TypeVar("T")
PAUSE_SECONDS = 1.0
"""Seconds without requests to the store after one failed."""
MAX_PENDING = 4096
"""Charges and settlements that may wait for a slow store. Past that nothing is counted."""
RENEWALS = 3
"""Renewals of a lease before it would expire."""
MAX_TOKENS = 2**31
UNKNOWN_WAIT = 1.0
"""Seconds to wait for a key past its concurrency, when nobody knows when one of its requests ends."""

log = logging.getLogger(__name__)


class Admission:
    """A request that may run. This one is not counted. `headers` are for its response, whatever that is."""

    headers: Sequence[Header] = ()
    counts_tokens: bool = False
    """Whether its tokens must be counted, even if nothing is recorded."""

    def settle(self, tokens: int | None) -> Awaitable[Any]:
        """End the request, which used `tokens`. None: nobody knows, so that what was set aside counts. Only the first call has an effect.

        It need not be awaited. Awaited, it returns once the store knows, so that the key's next request may run, or after `wait_ms`.
        """
        return _AtMost(None, 0)


class CountedAdmission(Admission):
    """An admission that the store has counted, or will count if it is slow to answer."""

    def __init__(self, quota: Quota, caller: KeyRecord, reserved: int, *, leased: bool) -> None:
        self.id = names.mint("")
        self.caller = caller
        self.reserved = reserved
        self.leased = leased
        self.counts_tokens = leased and caller.tpm is not None
        self.charge: asyncio.Task[QuotaState | None] = quota.in_background(quota.charge(self))
        self._quota = quota
        self._settlement: asyncio.Task[None] | None = None

    def settle(self, tokens: int | None) -> Awaitable[Any]:
        if self.leased and self._settlement is None:
            used = self.reserved if tokens is None else max(0, min(tokens, MAX_TOKENS))
            self._settlement = self._quota.in_background(self._quota.settle(self, used))
        return _AtMost(self._settlement, self._quota.wait_seconds)


class _AtMost:
    """An awaitable that waits for a task for at most `seconds`."""

    def __init__(self, task: asyncio.Task[None] | None, seconds: float) -> None:
        self._task = task
        self._seconds = seconds

    def __await__(self) -> Generator[Any, Any, None]:
        if self._task is not None and not self._task.done():
            yield from asyncio.wait({self._task}, timeout=self._seconds).__await__()


UNLIMITED = Admission()


class Quota:
    """The quotas of the requests of one gateway process. `run` must run for ever."""

    def __init__(self, quotas: Quotas, metrics: Metrics, config: QuotaConfig) -> None:
        self._quotas = quotas
        self._metrics = metrics
        self._config = config
        self._running: dict[str, CountedAdmission] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._unanswered: dict[str, float] = {}
        """When the charges that the store has not answered were sent, the oldest first."""
        self._paused_until = -math.inf

    def estimate(self, body_bytes: int, answer_tokens: int | None, choices: int = 1) -> int:
        """Tokens to set aside for a request with a body of that many bytes and up to `answer_tokens` in each choice."""
        answer = self._config.answer_tokens if answer_tokens is None else answer_tokens
        return min(MAX_TOKENS, math.ceil(body_bytes / self._config.bytes_per_token) + answer * choices)

    async def admit(self, caller: KeyRecord, model: str, tokens: int) -> Admission:
        """Admit a request for `model`, as the client wrote it, and set `tokens` aside. `settle` the admission once the request is over.

        ApiError: 404 for a model that the key may not use, 429 past a quota.
        """
        if not may_use(caller, model):
            raise no_model(model)
        if caller.rpm is None and caller.tpm is None and caller.concurrency is None:
            return UNLIMITED
        return await self._admit(caller, tokens, leased=caller.tpm is not None or caller.concurrency is not None)

    async def count(self, caller: KeyRecord) -> Sequence[Header]:
        """Count a request that needs no engine, and return the headers of its response. ApiError 429 past the quota."""
        return () if caller.rpm is None else (await self._admit(caller, 0, leased=False)).headers

    async def _admit(self, caller: KeyRecord, tokens: int, *, leased: bool) -> Admission:
        if monotonic() < self._paused_until or len(self._tasks) >= MAX_PENDING:
            self._metrics.quota_unchecked.inc()
            return UNLIMITED
        item = CountedAdmission(self, caller, min(tokens, caller.tpm or 0), leased=leased)
        try:
            await asyncio.wait({item.charge}, timeout=self.wait_seconds)
        except asyncio.CancelledError:
            item.settle(0)
            raise
        standing = item.charge.result() if item.charge.done() else None
        if standing is None:
            self._metrics.quota_unchecked.inc()
            return item
        item.headers = headers(caller, standing)
        if standing.refused:
            self._metrics.quota_refused.labels(standing.refused).inc()
            raise refusal(caller, standing, item.headers)
        return item

    @property
    def wait_seconds(self) -> float:
        """Seconds to wait for the store: none while another charge has waited too long already."""
        seconds, now = self._config.wait_ms / 1000, monotonic()
        late = next(iter(self._unanswered.values()), now) < now - seconds
        return 0.0 if late or now < self._paused_until else seconds

    async def charge(self, item: CountedAdmission) -> QuotaState | None:
        """Charge a request in the store. None if the store does not answer."""
        self._unanswered[item.id] = monotonic()
        try:
            standing = await self._quotas.ask(
                item.caller, item.id, tokens=item.reserved, leased=item.leased, lease_seconds=self._config.lease_seconds
            )
        except StoreError as error:
            if not isinstance(error, StoreUnavailable):
                log.error("a quota could not be counted: %s", error)
            self._paused_until = monotonic() + PAUSE_SECONDS
            return None
        finally:
            del self._unanswered[item.id]
        if item.leased and not standing.refused:
            self._running[item.id] = item
        return standing

    async def settle(self, item: CountedAdmission, used: int) -> None:
        """End the lease and settle the tokens of a request that was counted."""
        await asyncio.wait({item.charge})
        if self._running.pop(item.id, None) is not None:
            with store_may_fail(log, "settling a quota"):
                await self._quotas.end(item.caller, [Ended(item.id, item.reserved, used)], lease_seconds=self._config.lease_seconds)

    async def run(self) -> None:
        """Renew the leases of running requests, for ever."""
        while True:
            await asyncio.sleep(self._config.lease_seconds / RENEWALS)
            by_key: dict[str, tuple[KeyRecord, list[str]]] = {}
            for item in self._running.values():
                by_key.setdefault(item.caller.id, (item.caller, []))[1].append(item.id)
            if by_key:
                with store_may_fail(log, "renewing leases"):
                    await self._quotas.keep(list(by_key.values()), lease_seconds=self._config.lease_seconds)

    def in_background(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run `work` in a task of its own, which goes on if the request is cancelled."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Wait a moment for charges and settlements under way, then cancel them."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=PAUSE_SECONDS)
            await end(late)


def headers(caller: KeyRecord, standing: QuotaState) -> list[Header]:
    """OpenAI's `x-ratelimit-*` headers for the key's quotas."""
    found: list[Header] = []
    for name, limit, remaining, reset in (
        (b"requests", caller.rpm, standing.requests, standing.reset_requests),
        (b"tokens", caller.tpm, standing.tokens, standing.reset_tokens),
    ):
        if limit is not None:
            found += [
                (b"x-ratelimit-limit-" + name, b"%d" % limit),
                (b"x-ratelimit-remaining-" + name, b"%d" % remaining),
                (b"x-ratelimit-reset-" + name, duration(reset).encode()),
            ]
    return found


def refusal(caller: KeyRecord, standing: QuotaState, more: Sequence[Header]) -> ApiError:
    """Error 429 in OpenAI's form."""
    wait = standing.wait or UNKNOWN_WAIT
    quota = {
        "requests": f"{caller.rpm} requests a minute",
        "tokens": f"{caller.tpm} tokens a minute",
        "concurrency": f"{caller.concurrency} requests at a time",
    }[standing.refused]
    kind = "tokens" if standing.refused == "tokens" else "requests"
    message = f"Rate limit reached: this key may use {quota}. Try again in {duration(wait)}."
    return ApiError(429, message, code="rate_limit_exceeded", kind=kind, retry_after=wait, headers=more)


def duration(seconds: float) -> str:
    """A duration as OpenAI writes it: `6m0s`, `1.5s`, `17ms`."""
    thousandths = math.ceil(seconds * 1000)
    if thousandths < 1000:
        return f"{thousandths}ms" if thousandths else "0s"
    minutes, rest = divmod(thousandths, 60_000)
    hours, minutes = divmod(minutes, 60)
    short = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    return f"{hours}h{minutes}m{short}" if hours else f"{minutes}m{short}" if minutes else short
