"""Each test of an engine runs over the fake, the other engine (the proof of the seam), and the real vLLM."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from engines import connect, wire
from engines.fake.faults import Faults
from engines.routes import POOLING
from ratchet.config import ENGINES
from ratchet.types import EngineRecord
from tests.contracts.other.kind import OtherLaunch
from tests.contracts.other.site import other_engine
from tests.contracts.sites import Site
from tests.support.fake_engine import fake_engine
from tests.support.vllm_server import real_engine  # noqa: F401

collect_ignore_glob = [] if os.environ.get("RATCHET_ENGINES") == "1" else ["test_pooling.py"]
"""What needs more than `make setup` brings is collected only by `make test-engines`."""
REAL = pytest.param("real", marks=[pytest.mark.real, pytest.mark.slow])


@pytest.fixture(scope="package", autouse=True)
def other_kind() -> Iterator[None]:
    """The other engine's kind is known in this process."""
    ENGINES.register("other", OtherLaunch)
    yield
    ENGINES.unregister("other")


@pytest.fixture(scope="session", params=["fake", "other", REAL])
def started(request: pytest.FixtureRequest) -> EngineRecord | str:
    """The real engine, or what the test starts for itself. Of session scope, so that the real one is there before a test begins."""
    found: EngineRecord | str = request.getfixturevalue("real_engine") if request.param == "real" else request.param
    return found


@asynccontextmanager
async def site_of(started: EngineRecord | str) -> AsyncIterator[Site]:
    """An engine under contract that generates."""
    if isinstance(started, EngineRecord):
        engine = connect(started)
        yield Site(engine, wire(started.kind), real=True)
        await engine.close()
    elif started == "other":
        async with other_engine() as found:
            yield found
    else:
        async with fake_engine(Faults(lacks=list(POOLING))) as (_, record):
            engine = connect(record)
            yield Site(engine, wire(record.kind), real=False)
            await engine.close()


@pytest.fixture
async def site(started: EngineRecord | str) -> AsyncIterator[Site]:
    async with site_of(started) as found:
        yield found


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=240)) as found:
        yield found
