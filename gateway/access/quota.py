"""Quotas of a key: its models, and its requests, tokens and concurrency, counted in the store over all gateways.

A key without quotas costs nothing. One with quotas costs a round trip before each request, and one after it if tokens or
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
"""Seconds without checks after the store failed."""
MAX_PENDING = 4096
"""Most checks and settlements that may wait for a slow store; beyond that, requests are not checked."""
RENEWALS = 3
"""Renewals of a lease within `lease_seconds`."""
MOST_TOKENS = 2**31
UNKNOWN_WAIT = 1.0
"""The `retry-after` of a key at its concurrency limit, in seconds: nobody knows when a request of it will end."""

log = logging.getLogger(__name__)


class Admission:
    """A request that was admitted, here without a quota to count. `headers` are sent with its answer, whatever that is."""

    headers: Sequence[Header] = ()
    counts_tokens: bool = False
    """Whether its tokens must be counted, even if the answer is not recorded."""

    def settle(self, tokens: int | None) -> Awaitable[Any]:
        """End the request, which used `tokens` (None: unknown, so what was reserved stays charged). Only the first call counts.

        It takes effect without being awaited. Awaited, it returns once the store has counted it, or after `wait_ms`.
        """
        return _Until(None, 0)


class Counted(Admission):
    """An admission that the store has counted, or will count if it was too slow to answer in time."""

    def __init__(self, quota: Quota, caller: KeyRecord, reserved: int, *, leased: bool) -> None:
        self.id = names.mint("")
        self.caller = caller
        self.reserved = reserved
        self.leased = leased
        self.counts_tokens = leased and caller.tpm is not None
        self.check: asyncio.Task[QuotaState | None] = quota.start(quota.ask(self))
        self._quota = quota
        self._over: asyncio.Task[None] | None = None

    def settle(self, tokens: int | None) -> Awaitable[Any]:
        if self.leased and self._over is None:
            used = self.reserved if tokens is None else max(0, min(tokens, MOST_TOKENS))
            self._over = self._quota.start(self._quota.end(self, used))
        return _Until(self._over, self._quota.patience)


class _Until:
    """An awaitable that waits for a task, but for `seconds` at most."""

    def __init__(self, task: asyncio.Task[None] | None, seconds: float) -> None:
        self._task = task
        self._seconds = seconds

    def __await__(self) -> Generator[Any, Any, None]:
        if self._task is not None and not self._task.done():
            yield from asyncio.wait({self._task}, timeout=self._seconds).__await__()


UNBOUND = Admission()


class Quota:
    """Checks the quotas of one gateway's requests. `renew` runs for ever."""

    def __init__(self, quotas: Quotas, metrics: Metrics, config: QuotaConfig) -> None:
        self._quotas = quotas
        self._metrics = metrics
        self._config = config
        self._running: dict[str, Counted] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._asking: dict[str, float] = {}
        """When each check that has no answer yet was sent, the oldest first."""
        self._paused_until = -math.inf

    def estimate(self, body_bytes: int, answer_tokens: int | None, choices: int = 1) -> int:
        """Return the tokens to reserve for a request of `body_bytes` bytes with `answer_tokens` at most for each choice."""
        answer = self._config.answer_tokens if answer_tokens is None else answer_tokens
        return min(MOST_TOKENS, math.ceil(body_bytes / self._config.bytes_per_token) + answer * choices)

    async def admit(self, caller: KeyRecord, model: str, tokens: int) -> Admission:
        """Admit a request for `model` (as the client wrote it) and reserve `tokens`. Call `settle` on the admission once it has ended.

        Raises ApiError 404 for a model that the key may not use, 429 past a quota.
        """
        if not may_use(caller, model):
            raise no_model(model)
        if caller.rpm is None and caller.tpm is None and caller.concurrency is None:
            return UNBOUND
        return await self._admit(caller, tokens, leased=caller.tpm is not None or caller.concurrency is not None)

    async def count(self, caller: KeyRecord) -> Sequence[Header]:
        """Count a request that no engine answers. Return the headers of its answer. Raises ApiError 429 past the quota."""
        return () if caller.rpm is None else (await self._admit(caller, 0, leased=False)).headers

    async def _admit(self, caller: KeyRecord, tokens: int, *, leased: bool) -> Admission:
        if monotonic() < self._paused_until or len(self._tasks) >= MAX_PENDING:
            self._metrics.quota_unchecked.inc()
            return UNBOUND
        item = Counted(self, caller, min(tokens, caller.tpm or 0), leased=leased)
        try:
            await asyncio.wait({item.check}, timeout=self.patience)
        except asyncio.CancelledError:
            item.settle(0)
            raise
        state = item.check.result() if item.check.done() else None
        if state is None:
            self._metrics.quota_unchecked.inc()
            return item
        item.headers = headers(caller, state)
        if state.refused:
            self._metrics.quota_refused.labels(state.refused).inc()
            raise refusal(caller, state, item.headers)
        return item

    @property
    def patience(self) -> float:
        """Seconds to wait for the store: none while another check has already waited too long."""
        seconds, now = self._config.wait_ms / 1000, monotonic()
        late = next(iter(self._asking.values()), now) < now - seconds
        return 0.0 if late or now < self._paused_until else seconds

    async def ask(self, item: Counted) -> QuotaState | None:
        """Check and charge a request in the store. None if the store fails."""
        self._asking[item.id] = monotonic()
        try:
            state = await self._quotas.ask(
                item.caller, item.id, tokens=item.reserved, leased=item.leased, lease_seconds=self._config.lease_seconds
            )
        except StoreError as error:
            if not isinstance(error, StoreUnavailable):
                log.error("a quota could not be counted: %s", error)
            self._paused_until = monotonic() + PAUSE_SECONDS
            return None
        finally:
            del self._asking[item.id]
        if item.leased and not state.refused:
            self._running[item.id] = item
        return state

    async def end(self, item: Counted, used: int) -> None:
        """End the lease of a counted request and settle its tokens."""
        await asyncio.wait({item.check})
        if self._running.pop(item.id, None) is not None:
            with store_may_fail(log, "settling a quota"):
                await self._quotas.end(item.caller, [Ended(item.id, item.reserved, used)], lease_seconds=self._config.lease_seconds)

    async def renew(self) -> None:
        """Renew the leases of running requests, for ever."""
        while True:
            await asyncio.sleep(self._config.lease_seconds / RENEWALS)
            by_key: dict[str, tuple[KeyRecord, list[str]]] = {}
            for item in self._running.values():
                by_key.setdefault(item.caller.id, (item.caller, []))[1].append(item.id)
            if by_key:
                with store_may_fail(log, "renewing leases"):
                    await self._quotas.keep(list(by_key.values()), lease_seconds=self._config.lease_seconds)

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run `work` in a task of its own, since the request may be cancelled."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Wait up to PAUSE_SECONDS for settlements in progress, then cancel them."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=PAUSE_SECONDS)
            await end(late)


def headers(caller: KeyRecord, state: QuotaState) -> list[Header]:
    """Return OpenAI's `x-ratelimit-*` headers for the key's quotas."""
    found: list[Header] = []
    for name, limit, remaining, reset in (
        (b"requests", caller.rpm, state.requests, state.reset_requests),
        (b"tokens", caller.tpm, state.tokens, state.reset_tokens),
    ):
        if limit is not None:
            found += [
                (b"x-ratelimit-limit-" + name, b"%d" % limit),
                (b"x-ratelimit-remaining-" + name, b"%d" % remaining),
                (b"x-ratelimit-reset-" + name, duration(reset).encode()),
            ]
    return found


def refusal(caller: KeyRecord, state: QuotaState, more: Sequence[Header]) -> ApiError:
    """Return the ApiError 429, in OpenAI's form, of the quota that was exceeded."""
    wait = state.wait or UNKNOWN_WAIT
    bound = {
        "requests": f"{caller.rpm} requests a minute",
        "tokens": f"{caller.tpm} tokens a minute",
        "concurrency": f"{caller.concurrency} requests at a time",
    }[state.refused]
    kind = "tokens" if state.refused == "tokens" else "requests"
    message = f"Rate limit reached: this key may use {bound}. Try again in {duration(wait)}."
    return ApiError(429, message, code="rate_limit_exceeded", kind=kind, retry_after=wait, headers=more)


def duration(seconds: float) -> str:
    """Format a duration as OpenAI does: `6m0s`, `1.5s`, `17ms`."""
    thousandths = math.ceil(seconds * 1000)
    if thousandths < 1000:
        return f"{thousandths}ms" if thousandths else "0s"
    minutes, rest = divmod(thousandths, 60_000)
    hours, minutes = divmod(minutes, 60)
    short = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    return f"{hours}h{minutes}m{short}" if hours else f"{minutes}m{short}" if minutes else short
