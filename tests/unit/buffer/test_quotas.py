"""The quota script on a real server: two buckets and the leases of one key, counted over any number of gateways."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ratchet.buffer import Store, open_store
from ratchet.buffer.quotas import Ended, QuotaState
from ratchet.config import StoreConfig
from ratchet.types import KeyRecord
from tests.support.gateway_process import until

LEASE = 30.0


def key(**bounds: int) -> KeyRecord:
    return KeyRecord("key_a", "acme", ["infer"], 1.0, **bounds)  # type: ignore[arg-type]


async def ask(store: Store, caller: KeyRecord, request: str, tokens: int = 0, *, leased: bool = True, lease: float = LEASE) -> QuotaState:
    return await store.quotas.ask(caller, request, tokens=tokens, leased=leased, lease_seconds=lease)


async def end(store: Store, caller: KeyRecord, request: str, reserved: int, used: int) -> None:
    await store.quotas.end(caller, [Ended(request, reserved, used)], lease_seconds=LEASE)


async def age(store: Store, seconds: float) -> None:
    """Lets time pass for the key's buckets."""
    at = int(await store.quotas._link.do("HGET", "r:q:key_a", "at"))
    await store.quotas._link.do("HSET", "r:q:key_a", "at", at - round(seconds * 1_000_000))


async def test_requests_over_several_gateways_pass_exactly_as_often_as_the_bucket_holds(store: Store, tmp_path: Path) -> None:
    gateways = [store, *[await open_store("embedded", StoreConfig(), data=tmp_path) for _ in range(2)]]
    caller = key(rpm=7)
    asked = (ask(gateways[i % 3], caller, f"r{i}", leased=False) for i in range(60))
    answers = await asyncio.gather(*asked)
    assert sorted(standing.refused for standing in answers) == [""] * 7 + ["requests"] * 53
    assert sorted(standing.requests for standing in answers if not standing.refused) == list(range(7))
    for other in gateways[1:]:
        await other.close()


async def test_a_bucket_refills_evenly_and_never_past_its_brim(store: Store) -> None:
    caller = key(rpm=6)
    for i in range(6):
        assert not (await ask(store, caller, f"a{i}", leased=False)).refused
    refused = await ask(store, caller, "b", leased=False)
    assert refused.refused == "requests"
    assert 9 < refused.wait <= 10
    assert 59 < refused.reset_requests <= 60
    await age(store, refused.wait)
    assert not (await ask(store, caller, "c", leased=False)).refused
    assert (await ask(store, caller, "d", leased=False)).refused
    await age(store, 3600)
    assert (await ask(store, caller, "e", leased=False)).requests == 5


async def test_tokens_are_set_aside_and_settled_with_what_was_used(store: Store) -> None:
    caller = key(tpm=100)
    assert (await ask(store, caller, "a", 60)).tokens == 40
    refused = await ask(store, caller, "b", 60)
    assert (refused.refused, refused.tokens) == ("tokens", 40)
    assert 11 < refused.wait <= 12
    await end(store, caller, "a", 60, 10)
    assert 89 <= (await ask(store, caller, "c", 1)).tokens <= 90
    await end(store, caller, "a", 60, 10)
    assert 88 <= (await ask(store, caller, "d", 1)).tokens <= 89


async def test_an_answer_longer_than_was_set_aside_is_paid_for_later(store: Store) -> None:
    caller = key(tpm=60)
    assert not (await ask(store, caller, "a", 10)).refused
    await end(store, caller, "a", 10, 130)
    refused = await ask(store, caller, "b", 1)
    assert (refused.refused, refused.tokens) == ("tokens", 0)
    assert 70 < refused.wait <= 71
    assert 129 < refused.reset_tokens <= 130
    await end(store, caller, "never asked", 0, 2**31)
    await ask(store, key(tpm=60), "c", 1)
    assert (await ask(store, caller, "d", 1)).wait <= 71


async def test_a_debt_has_a_bound(store: Store) -> None:
    caller = key(tpm=10)
    await ask(store, caller, "a", 10)
    await end(store, caller, "a", 10, 2**31)
    assert 3600 < (await ask(store, caller, "b", 1)).wait <= 3606.1


async def test_a_request_larger_than_the_bucket_takes_all_of_it(store: Store) -> None:
    caller = key(tpm=100)
    assert (await ask(store, caller, "a", 10**6)).tokens == 0
    assert (await ask(store, caller, "b", 10**6)).refused == "tokens"


async def test_what_is_refused_is_charged_nowhere(store: Store) -> None:
    caller = key(rpm=10, tpm=100, concurrency=2)
    for i in range(3):
        last = await ask(store, caller, f"a{i}", 10)
    assert (last.refused, last.wait, last.requests, last.tokens) == ("concurrency", 0, 8, 80)
    await end(store, caller, "a0", 10, 10)
    refused = await ask(store, caller, "b", 90)
    assert (refused.refused, refused.requests) == ("tokens", 8)
    assert not (await ask(store, caller, "c", 10)).refused


async def test_a_request_asked_twice_is_charged_once(store: Store) -> None:
    caller = key(rpm=10, tpm=100, concurrency=1)
    first, again = [await ask(store, caller, "a", 10) for _ in range(2)]
    assert (first.refused, first.requests, first.tokens) == (again.refused, again.requests, again.tokens) == ("", 9, 90)


async def test_a_lease_that_nobody_keeps_ends_and_one_that_is_kept_does_not(store: Store) -> None:
    caller = key(concurrency=2)
    for request in ("dead", "alive"):
        assert not (await ask(store, caller, request, lease=0.3)).refused
    assert (await ask(store, caller, "late")).refused == "concurrency"

    async def free() -> bool:
        await store.quotas.keep([(caller, ["alive", "never asked"])], lease_seconds=LEASE)
        return not (await ask(store, caller, "late")).refused

    await until(free, "the dead one's lease ended")
    assert (await ask(store, caller, "later")).refused == "concurrency"


async def test_a_keys_state_is_gone_once_it_says_nothing(store: Store) -> None:
    caller = key(rpm=60_000, concurrency=1)
    await ask(store, caller, "a", lease=0.01)

    async def gone() -> bool:
        return not await store.quotas._link.do("EXISTS", "r:q:key_a", "r:ql:key_a")

    await until(gone, "the key's state expired")


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
async def test_a_clock_that_jumps_locks_nobody_out(store: Store, jump: float) -> None:
    caller = key(rpm=2)
    await ask(store, caller, "a", leased=False)
    await age(store, jump)
    answers = [await ask(store, caller, f"b{i}", leased=False) for i in range(2)]
    assert [answer.refused for answer in answers] == (["", ""] if jump > 0 else ["", "requests"])
    assert answers[-1].wait <= 30
