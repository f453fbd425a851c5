"""Rows 4 and 1 of reliability.md with the store away: serving goes on, and what was acknowledged reaches the store.

A few seconds and kills by default; RATCHET_FAULTS=full for the whole counts.
"""

from __future__ import annotations

import asyncio
import random
import signal
from pathlib import Path
from statistics import median

import pytest

from ratchet.buffer import EmbeddedServer
from ratchet.buffer.spool import FOLDER, survey
from ratchet.config import StoreConfig
from tests.support.acknowledgement_log import loading
from tests.support.fault_figures import FULL, measured
from tests.support.gateway_process import Bench, bench
from tests.support.stores import listed

AWAY_SECONDS = 60.0 if FULL else 3.0
KILLS = 100 if FULL else 5
READY_SECONDS = 5.0
CLIENTS = 16
STREAMS = 50 if FULL else 16
LONGEST_SECONDS = 0.5


async def kill_store(made: Bench) -> None:
    made.server.process.send_signal(signal.SIGKILL)
    await made.server.wait()
    await made.server.stop()


async def start_store(made: Bench) -> None:
    made.server = await EmbeddedServer.start(made.data, StoreConfig())


@pytest.mark.slow
@pytest.mark.timeout(120 + 2 * AWAY_SECONDS)
@pytest.mark.parametrize("how", ["killed", "hangs"])
async def test_a_store_away_under_load_costs_no_answer_and_doubles_none(tmp_path: Path, how: str) -> None:
    async with bench(tmp_path) as made:
        async with loading(made, CLIENTS) as load:
            await load.came(50)
            assert load.feedback[503] == 0
            if how == "killed":
                await kill_store(made)
            else:
                made.server.process.send_signal(signal.SIGSTOP)
            before = load.answers
            await asyncio.sleep(AWAY_SECONDS)
            meanwhile = load.answers - before
            if how == "killed":
                await start_store(made)
            else:
                made.server.process.send_signal(signal.SIGCONT)
            await load.came(50)
        await load.kept()
        spooled = await made.metric("ratchet_spooled_total")
        measured(
            "away %.0f s (%s): %d answers, %d of them meanwhile, %d spooled, slowest %.2f s; feedback %s; errors %s",
            *(AWAY_SECONDS, how, load.answers, meanwhile, spooled, load.longest, dict(load.feedback), load.errors),
        )
        assert load.errors == []
        assert load.unrecorded == set()
        assert meanwhile > 0 and spooled >= meanwhile - CLIENTS
        assert await made.store.interactions.count() == len(load.recorded)
        assert set(load.feedback) <= {202, 503} and load.impatient == 0
        assert load.feedback[503] > 0 or how == "hangs"
        ledger = await made.store.feedback.ledger()
        assert ledger.balances and ledger.received >= len(load.rated)


@pytest.mark.slow
@pytest.mark.timeout(120 + 20 * KILLS)
async def test_what_a_killed_gateway_had_acknowledged_is_found_with_the_store_away_half_of_the_time(tmp_path: Path) -> None:
    rng, spooled = random.Random(1), 0
    ready: list[float] = []
    recorded: set[str] = set()
    async with bench(tmp_path) as made:
        for kill in range(KILLS):
            async with loading(made, STREAMS) as load:
                if away := kill % 2 == 0:
                    await kill_store(made)
                    await load.came(1)
                await asyncio.sleep(rng.uniform(0, LONGEST_SECONDS))
                assert made.process is not None
                made.process.kill()
                await made.process.wait()
                load.leave = True
            if away:
                spooled += survey(tmp_path / FOLDER).waiting
                await start_store(made)
            begun = asyncio.get_running_loop().time()
            await made.start()
            ready.append(asyncio.get_running_loop().time() - begun)
            await load.kept()
            recorded |= load.recorded
        told = "%d kills: %d answers acknowledged, 0 missing, %d were found in spools; ready again after %.1f s, at most %.1f s"
        measured(told, KILLS, len(recorded), spooled, median(ready), max(ready))
        assert recorded and spooled and median(ready) < READY_SECONDS
        ids = [item.id for item in (await listed(made.store, "acme", limit=100_000))[0]]
        assert len(ids) == len(set(ids))
