"""Policies, their versions, and for each the pointer to the version that serves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from types import MappingProxyType
from typing import Any, Literal, cast

import msgspec

from ratchet import clock, names
from ratchet.buffer import schema
from ratchet.buffer.events import follow
from ratchet.buffer.link import Link
from ratchet.types import PolicyEvent, PolicyRecord, PolicyVersionRecord, VersionState


class Registry:
    """The policies. Every move of a pointer is one transaction, which compares before it sets."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def ensure(self, policy: str, base: str) -> PolicyRecord:
        """Return the policy; a new one is created with version 0, the base, live. Raises Conflict if its base is another."""
        first = PolicyVersionRecord(policy, 0, "live", clock.wall())
        await self._link.run("ensure", msgspec.msgpack.encode(first), policy=policy, base=base)
        return await self._policy(policy)

    async def policy(self, name: str) -> PolicyRecord | None:
        """Return the policy, or None."""
        return _policy(name, await self._link.do("HGETALL", schema.policy(name)))

    async def policies(self) -> list[PolicyRecord]:
        """Return all policies, sorted by name."""
        listed = sorted(name.decode() for name in await self._link.do("SMEMBERS", schema.POLICIES))
        if not listed:
            return []
        rows = await self._link.together(*(("HGETALL", schema.policy(name)) for name in listed), atomic=True)
        return [record for name, row in zip(listed, rows, strict=True) if (record := _policy(name, row)) is not None]

    async def version(self, policy: str, version: int) -> PolicyVersionRecord | None:
        """Return one version, or None."""
        data, state, verdict = await self._link.together(
            *(("HGET", key(policy), version) for key in (schema.versions, schema.states, schema.verdicts)), atomic=True
        )
        return _version(data, state, verdict) if data is not None else None

    async def versions(self, policy: str) -> list[PolicyVersionRecord]:
        """Return all versions, ascending."""
        data, state, verdict = await self._link.together(
            *(("HGETALL", key(policy)) for key in (schema.versions, schema.states, schema.verdicts)), atomic=True
        )
        return [_version(data[v], state[v], verdict.get(v)) for v in sorted(data, key=int)]

    async def retained(self, policy: str, keep: int) -> list[PolicyVersionRecord]:
        """Return the live version, then the `keep` most recently live before it, without version 0, which has no adapter."""
        order = await self.lived(policy)
        chosen = [order[0], *[v for v in order[1:] if v != 0][:keep]] if order else []
        found = [await self.version(policy, v) for v in chosen if v != 0]
        return [record for record in found if record is not None]

    async def lived(self, policy: str) -> list[int]:
        """Return the versions that were ever live, 0 too: the live one, then the one that was live most recently, and so on."""
        return [int(v) for v in await self._link.do("ZREVRANGE", schema.lived(policy), 0, -1)]

    async def commit_step(
        self,
        policy: str,
        step: int,
        candidate: PolicyVersionRecord,
        *,
        rejected: Mapping[str, str] = MappingProxyType({}),
        token: int | None = None,
    ) -> None:
        """Commit a step: write its number, the candidate (with checkpoint digest) and the examples it consumed, or nothing.

        Leased examples in `candidate.consumed` wait for `publish` or `refuse`; those in `rejected`, by id, become
        `rejected: {reason}`, the rest `rejected: {dropped}`. The same commit again changes nothing. Raises Conflict if the step or the
        version is not the next, a consumed or rejected example is not in the lease, or `token` is not current.
        """
        await self._link.run(
            "commit",
            msgspec.msgpack.encode(candidate),
            policy=policy,
            step=step,
            version=candidate.version,
            consumed=list(candidate.consumed),
            rejected=dict(rejected),
            token=token,
        )

    async def publish(
        self, policy: str, version: int, *, expect_live: int, verdict: dict[str, Any], token: int | None = None
    ) -> PolicyRecord:
        """Make the candidate live and its rewards used.

        Raises Conflict if the pointer is not at `expect_live`, or `token` is not current.
        """
        await self._link.run("publish", policy=policy, version=version, expect_live=expect_live, verdict=_json(verdict), token=token)
        return await self._policy(policy)

    async def refuse(self, policy: str, version: int, *, gate: str, verdict: dict[str, Any], token: int | None = None) -> None:
        """Refuse the candidate, which never serves. Its rewards become `rejected: {gate}`.

        Raises Conflict if it is no candidate, or `token` is not current.
        """
        await self._link.run("refuse", policy=policy, version=version, gate=gate, verdict=_json(verdict), token=token)

    async def move(self, policy: str, to: int, *, expect_live: int, reason: Literal["promote", "rollback"]) -> PolicyRecord:
        """Move the pointer to a version that was live before. The version that was live becomes retired, or rolled_back by a rollback.

        Raises Conflict if the pointer is not at `expect_live`, or `to` is unknown, refused or still a candidate.
        """
        former = "rolled_back" if reason == "rollback" else "retired"
        await self._link.run("move", policy=policy, to=to, expect_live=expect_live, former=former)
        return await self._policy(policy)

    async def announce_loading(self, policy: str) -> None:
        """Publish the event that a candidate begins to load."""
        await self._link.run("loading", policy=policy)

    def events(self) -> AsyncIterator[PolicyEvent]:
        """Yield moves as they happen. At the start, and after each lost connection, the current pointers come first."""
        return follow(self._link, self.policies)

    async def set_status(self, policy: str, status: dict[str, Any]) -> None:
        """Replace the learner's status."""
        await self._link.do("SET", schema.status(policy), msgspec.json.encode(status))

    async def status(self, policy: str) -> dict[str, Any]:
        """Return the status last set; empty if none was."""
        data = await self._link.do("GET", schema.status(policy))
        return msgspec.json.decode(data, type=dict[str, Any]) if data is not None else {}

    async def acquire_learner(self, policy: str, owner: str, seconds: float) -> int | None:
        """Acquire the learner's lease on a policy. Return its fencing token, which only ever grows, or None while another owner has it.

        The owner of a lease gets its own token back, and the lease is renewed. A lease runs out if it is not renewed for `seconds` of
        the store's clock. A jump of that clock does not end it: a call counts for half of `seconds` at most, so another owner
        acquires it at its second call at the earliest.
        """
        token = await self._link.run("learner", policy=policy, how="acquire", owner=owner, term=round(seconds * 1000))
        return None if token is None else int(token)

    async def renew_learner(self, policy: str, owner: str, token: int, seconds: float) -> bool:
        """Renew the lease for another `seconds`. Return False if it is no longer this owner's with this token."""
        found = await self._link.run("learner", policy=policy, how="renew", owner=owner, token=token, term=round(seconds * 1000))
        return found is not None

    async def release_learner(self, policy: str, token: int) -> None:
        """Release the lease, if `token` is still current. Another owner may acquire it at once."""
        await self._link.run("learner", policy=policy, how="release", token=token)

    async def request_training(self, policy: str) -> str:
        """Request a training step. Return the job's id, or that of the job that already waits."""
        key = schema.job(policy)
        _, job = await self._link.together(("SET", key, names.mint("job_"), "NX"), ("GET", key), atomic=True)
        return str(job.decode())

    async def requested_training(self, policy: str) -> str | None:
        """Return the job that waits, or None. The next lease takes it in the same transaction, so a crash does not lose it."""
        job = await self._link.do("GET", schema.job(policy))
        return job.decode() if job is not None else None

    async def _policy(self, name: str) -> PolicyRecord:
        return cast(PolicyRecord, await self.policy(name))


def _policy(name: str, row: dict[bytes, bytes]) -> PolicyRecord | None:
    if not row:
        return None
    numbers = {field: int(row[field.encode()]) for field in ("live", "epoch", "next_version", "step")}
    return PolicyRecord(name, row[b"base"].decode(), **numbers)


def _version(data: bytes, state: bytes, verdict: bytes | None) -> PolicyVersionRecord:
    record = msgspec.msgpack.decode(data, type=PolicyVersionRecord)
    record.state = cast(VersionState, state.decode())
    if verdict is not None:
        record.verdict = msgspec.json.decode(verdict)
    return record


def _json(verdict: dict[str, Any]) -> str:
    return msgspec.json.encode(verdict).decode()
