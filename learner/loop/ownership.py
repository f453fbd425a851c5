"""One learner for each policy: the lease that a process holds on it, and the fencing token that the store checks.

The lease runs out if it is not renewed, so that another learner can take over from one that died. A learner that was replaced
without knowing it changes nothing: the store refuses its token.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

from ratchet import clock
from ratchet.buffer import Store
from ratchet.errors import RatchetError, StoreUnavailable
from ratchet.tasks import end

log = logging.getLogger(__name__)

RENEWALS = 4
"""How often a lease is renewed before it would run out, and how often another learner asks for it in that time."""


class NotHeld(RatchetError):
    """Another learner works on the policy, or may soon."""


@dataclass(frozen=True)
class Identity:
    """The name that a learner process holds its leases under, and that of the process whose data directory it took over."""

    name: str
    predecessor: str = ""


def new_identity(data: Path) -> Identity:
    """A name for this process. The caller must hold the lock of the data directory: then its predecessor there is dead."""
    path = data / "checkpoints" / "learner"
    predecessor = path.read_text(encoding="utf-8") if path.is_file() else ""
    name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(8)}"
    # Not durable: without the predecessor's name, this process waits until its leases run out.
    path.write_text(name, encoding="utf-8")
    return Identity(name, predecessor)


class Ownership:
    """The lease of this process on one policy."""

    def __init__(self, policy: str, store: Store, identity: Identity, seconds: float) -> None:
        """`seconds`: after which the lease runs out without a renewal."""
        self.owner = identity.name
        self._policy = policy
        self._registry = store.registry
        self._predecessor = identity.predecessor
        self._seconds = seconds
        self._token: int | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._next_attempt = clock.monotonic()

    @property
    def held(self) -> bool:
        """Whether the lease is held, as far as this process knows."""
        return self._token is not None

    @property
    def token(self) -> int:
        """The fencing token. NotHeld if the lease is not held."""
        if self._token is None:
            raise NotHeld(f"another learner works on {self._policy}")
        return self._token

    def check(self) -> None:
        """NotHeld if the lease is not held. Callable from any thread."""
        _ = self.token

    async def acquire(self) -> bool:
        """Take the lease if nobody has it; whether it is held. The attempts are spaced, so call it as often as you like."""
        if self.held or clock.monotonic() < self._next_attempt:
            return self.held
        self._next_attempt = clock.monotonic() + self._seconds / RENEWALS
        await self._succeed()
        self._token = await self._registry.acquire_learner(self._policy, self.owner, self._seconds)
        if self._token is None:
            await self._registry.stand_by(self._policy, self.owner, self._seconds)
            return False
        self._renewing = asyncio.create_task(self._renew(self._token), name=f"renew {self._policy}")
        return True

    async def confirm(self) -> None:
        """Renew the lease now. NotHeld if another learner has it. StoreUnavailable."""
        if not await self._registry.renew_learner(self._policy, self.owner, self.token, self._seconds):
            log.warning("%s: another learner took over", self._policy)
            self._token = None
            raise NotHeld(f"another learner took over {self._policy}")

    async def release(self) -> None:
        """Give the lease back, so that another learner need not wait until it runs out."""
        if self._renewing is not None:
            await end([self._renewing])
        if self._token is not None:
            token, self._token = self._token, None
            with contextlib.suppress(StoreUnavailable):
                await self._registry.release_learner(self._policy, token)

    async def _succeed(self) -> None:
        """Give back what the dead predecessor held."""
        if self._predecessor:
            token = await self._registry.acquire_learner(self._policy, self._predecessor, self._seconds)
            if token is not None:
                await self._registry.release_learner(self._policy, token)
            self._predecessor = ""

    async def _renew(self, token: int) -> None:
        while self._token == token:
            await asyncio.sleep(self._seconds / RENEWALS)
            # A store that is away decides nothing: while it is, nobody else gets the lease either.
            with contextlib.suppress(StoreUnavailable, NotHeld):
                await self.confirm()
