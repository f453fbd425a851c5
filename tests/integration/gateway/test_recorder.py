"""Recorder, outbox and drain on a real store that goes away and comes back."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from gateway.record.drain import Drain
from gateway.record.outbox import Outbox
from gateway.record.recorder import Recorder, Reservation, reservation_size
from gateway.telemetry.metrics import Metrics
from ratchet.buffer import EmbeddedServer, Store, open_store
from ratchet.buffer.interactions import pack
from ratchet.buffer.spool import FOLDER, Spool, Survey, survey
from ratchet.config import GatewayConfig, OutboxConfig, StoreConfig
from ratchet.errors import StoreUnavailable
from ratchet.types import Interaction
from tests.support.gateway_process import until
from tests.support.stores import TENANT, interaction, listed

CLOCK = asyncio.get_running_loop


@dataclass
class Site:
    """A recorder and what is around it; the store's server can be stopped and started."""

    data: Path
    server: EmbeddedServer
    store: Store
    outbox: Outbox
    drain: Drain
    recorder: Recorder
    metrics: Metrics
    config: StoreConfig
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    async def start(self) -> None:
        self.server = await EmbeddedServer.start(self.data, self.config)

    async def settled(self) -> None:
        async def empty() -> bool:
            return not self.outbox.store_unavailable and await self.drain.wait_drained(1)

        await until(empty, "the spool is drained")

    async def stored(self) -> set[str]:
        items, more = await listed(self.store, TENANT, limit=1000)
        assert not more
        ids = [item.id for item in items]
        assert len(ids) == len(set(ids)) == await self.store.interactions.count()
        return set(ids)


@asynccontextmanager
async def site(data: Path, *, store: StoreConfig | None = None, drains: bool = True, **gateway: object) -> AsyncIterator[Site]:
    config = store or StoreConfig()
    server = await EmbeddedServer.start(data, config)
    opened = await open_store("embedded", config, data=data)
    settings, metrics = GatewayConfig.model_validate(gateway), Metrics()
    outbox = Outbox(data, settings.outbox, metrics)
    drain = Drain(outbox, opened.interactions, metrics, settings.outbox.adopt_seconds)
    made = Site(data, server, opened, outbox, drain, Recorder(opened.interactions, outbox, metrics, settings), metrics, config)
    await outbox.start()
    made.tasks = [asyncio.create_task(made.recorder.run()), *([asyncio.create_task(drain.run())] if drains else [])]
    try:
        yield made
    finally:
        for task in made.tasks:
            task.cancel()
        ended = await asyncio.gather(*made.tasks, return_exceptions=True)
        await drain.close()
        await outbox.close()
        await opened.close()
        await made.server.stop()
        assert all(isinstance(end, asyncio.CancelledError) for end in ended)


async def write_all(made: Site, count: int) -> set[str]:
    """Writes answers at a time; their ids."""
    items = [interaction() for _ in range(count)]
    await asyncio.gather(*(made.recorder.write(item) for item in items))
    return {item.id for item in items}


async def test_many_answers_at_a_time_are_all_durable_when_they_say_so_and_none_is_spooled(tmp_path: Path) -> None:
    async with site(tmp_path, outbox={"wait_ms": 5000}) as made:

        async def one(item: Interaction) -> None:
            await made.recorder.write(item)
            assert await made.store.interactions.get(item.id, None) is not None

        await asyncio.gather(*(one(interaction()) for _ in range(200)))
        assert await made.store.interactions.count() == 200
        assert await made.recorder.flush(1)
        assert made.count("ratchet_spooled_total") == 0
        assert made.count("ratchet_recorded_total", status="complete") == 200


async def test_an_answer_that_cannot_be_put_fails_alone(tmp_path: Path) -> None:
    async with site(tmp_path) as made:
        futures = [made.recorder.submit(item) for item in (interaction(), interaction(tenant="_ratchet"), interaction())]
        results = await asyncio.gather(*futures, return_exceptions=True)
        assert [type(result) for result in results] == [type(None), StoreUnavailable, type(None)]
        assert made.count("ratchet_recorded_total", status="lost") == 1


@pytest.mark.parametrize("away", [False, True])
async def test_an_answer_that_cannot_be_packed_fails_alone_and_ends_nothing(tmp_path: Path, away: bool) -> None:
    async with site(tmp_path, drains=False) as made:
        made.outbox.store_unavailable = away
        futures = [made.recorder.submit(item) for item in (interaction(usage={"total_tokens": 2**70}), interaction())]
        results = await asyncio.gather(*futures, return_exceptions=True)
        assert [type(result) for result in results] == [StoreUnavailable, type(None)]


@pytest.mark.parametrize("hangs", [False, True])
async def test_with_the_store_away_answers_are_spooled_in_time_and_drained_once_it_is_back(tmp_path: Path, hangs: bool) -> None:
    async with site(tmp_path) as made:
        ids = await write_all(made, 20)
        if hangs:
            os.kill(made.server.process.pid, signal.SIGSTOP)
        else:
            await made.server.stop()
        clock = CLOCK().time
        for _ in range(5):
            begun = clock()
            ids |= await write_all(made, 20)
            assert clock() - begun < 1
        assert made.count("ratchet_spooled_total") >= 100
        assert survey(tmp_path / FOLDER).waiting >= 100
        if hangs:
            os.kill(made.server.process.pid, signal.SIGCONT)
        else:
            await made.start()
        await made.settled()
        assert await made.stored() == ids
        assert survey(tmp_path / FOLDER) == Survey(0, 0, 0)
        before = made.count("ratchet_spooled_total")
        ids |= await write_all(made, 1)
        assert await made.stored() == ids
        assert made.count("ratchet_spooled_total") == before


async def test_a_store_that_is_full_counts_as_away(tmp_path: Path) -> None:
    async with site(tmp_path, store=StoreConfig(max_memory_mb=16)) as made:
        items = [interaction(metadata={"noise": os.urandom(50_000).hex()}) for _ in range(150)]
        await asyncio.gather(*(made.recorder.write(item) for item in items))
        assert made.count("ratchet_spooled_total") > 0
        await made.store.interactions._link.do("CONFIG", "SET", "maxmemory", "256mb")
        await made.settled()
        assert await made.store.interactions.count() == 150


async def test_a_killed_gateways_spool_is_drained_by_the_next_and_twice_is_once(tmp_path: Path) -> None:
    items = [interaction() for _ in range(30)]
    async with site(tmp_path) as made:
        await asyncio.gather(*(made.recorder.write(item) for item in items[:10]))
    dead = Spool.create(tmp_path / FOLDER, 2**16, 2**20)
    dead.append([pack(item) for item in items])
    dead.close()
    async with site(tmp_path) as made:

        async def drained() -> bool:
            return made.count("ratchet_drained_total") == 30

        await until(drained, "the dead gateway's answers are drained")
        assert await made.stored() == {item.id for item in items}
        found, _ = await listed(made.store, TENANT, limit=100)
        assert [item.id for item in found[10:]] == [item.id for item in items[10:]]


async def test_a_living_gateways_spool_is_left_to_it(tmp_path: Path) -> None:
    async with site(tmp_path, outbox={"adopt_seconds": 0.01}) as made:
        other = Spool.create(tmp_path / FOLDER, 2**16, 2**24)
        other.append([pack(interaction())])
        await write_all(made, 1)
        await made.settled()
        assert made.count("ratchet_drained_total") == 0
        other.close()

        async def drained() -> bool:
            return made.count("ratchet_drained_total") == 1

        await until(drained, "it is drained once it is given up")


async def test_what_can_never_be_stored_is_set_aside_and_blocks_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good, hexes = [interaction(id=f"chatcmpl-{i:032x}") for i in range(3)], "f" * 32
    dead = Spool.create(tmp_path / FOLDER, 2**16, 2**20)
    poison = [b"no interaction", pack(interaction(tenant="_ratchet")), pack(interaction(id=f"chatcmpl-{hexes}"))]
    dead.append([record for pair in zip(poison, map(pack, good), strict=True) for record in pair])
    dead.close()
    async with site(tmp_path, drains=False) as made:
        # The server itself refuses this one id, and takes all others.
        await made.store.interactions._link.do("ACL", "SETUSER", "default", "resetkeys", "~r:[^m]*", "~r:m:chatcmpl-0*")
        made.tasks.append(asyncio.create_task(made.drain.run()))

        async def drained() -> bool:
            return made.count("ratchet_drained_total") == 6

        await until(drained, "the spool is drained")
        assert made.count("ratchet_set_aside_total", reason="refused") == 3
        assert await made.store.interactions.many([item.id for item in good]) == good
        assert survey(tmp_path / FOLDER).refused == 3
        assert not made.outbox.store_unavailable
    assert caplog.text.count("can never be stored") == 3


async def test_a_store_that_refuses_everything_sets_nothing_aside(tmp_path: Path) -> None:
    async with site(tmp_path) as made:
        await made.store.interactions._link.do("ACL", "SETUSER", "default", "-evalsha")
        ids = await write_all(made, 10)
        assert made.count("ratchet_spooled_total") == 10
        await made.store.interactions._link.do("ACL", "SETUSER", "default", "+evalsha")
        await made.settled()
        assert await made.stored() == ids
        assert made.count("ratchet_set_aside_total", reason="refused") == 0


async def test_with_neither_store_nor_spool_nothing_is_promised_and_with_either_all_is(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("no folder")
    async with site(tmp_path, record_seconds=0.3) as made:
        assert await made.recorder.reserve(1000) == Reservation(True, 0)
        await made.server.stop()
        with pytest.raises(StoreUnavailable):
            await made.recorder.write(interaction())
        assert await made.recorder.reserve(1000) == Reservation(False, 0)
        assert made.count("ratchet_unrecorded_total") == 1
        (tmp_path / FOLDER).unlink()

        async def promised() -> bool:
            return (await made.recorder.reserve(1000)).promised

        await until(promised, "the spool is there")
        ids = await write_all(made, 5)
        await made.start()
        await made.settled()
        assert ids <= await made.stored()


async def test_room_is_kept_for_each_running_answer_and_given_back(tmp_path: Path) -> None:
    async with site(tmp_path, outbox={"max_spool_mb": 1}) as made:
        await made.server.stop()
        await write_all(made, 1)
        size = 100_000
        rooms = []
        while (room := await made.recorder.reserve(size)).promised:
            rooms.append(room)
        assert 7 <= len(rooms) <= 10
        big = {"noise": os.urandom(20_000).hex()}
        await asyncio.gather(*(made.recorder.write(interaction(metadata=big)) for _ in rooms))
        for room in rooms:
            made.recorder.release(room)
        await made.start()
        await made.settled()
        await made.server.stop()
        assert (await made.recorder.reserve(size)).promised


async def test_a_full_queue_fails_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.record.recorder.MAX_QUEUE", 1)
    async with site(tmp_path) as made:
        first = made.recorder.submit(interaction())
        with pytest.raises(StoreUnavailable, match="too many"):
            await made.recorder.submit(interaction())
        await first


def test_the_room_kept_is_more_than_an_answer_takes() -> None:
    for tokens in (16, 200, 2000):
        item = interaction()
        item.prompt_ids = list(range(1000, 1000 + tokens))
        item.choices[0].token_ids = [int.from_bytes(os.urandom(2)) for _ in range(tokens)]
        item.choices[0].logprobs = [-int.from_bytes(os.urandom(6)) / 2**40 for _ in range(tokens)]
        item.choices[0].message = {"role": "assistant", "content": os.urandom(tokens).hex()}
        item.request["messages"][0]["content"] = os.urandom(2 * tokens).hex()
        body = len(msgspec.json.encode(item.request))
        assert 2 * len(pack(item)) < reservation_size(body, 1, tokens)


def test_the_wait_for_the_store_is_what_the_contract_says() -> None:
    assert OutboxConfig().wait_ms == 50
