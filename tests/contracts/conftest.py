"""Each test of an engine runs over the fake, and over the real vLLM."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import aiohttp
import pytest

from engines import connect, wire
from engines.fake.faults import Faults
from gateway.api.paths import POOLING
from ratchet.types import EngineRecord
from tests.contracts.sites import Site
from tests.support.engines_fake import fake_engine
from tests.support.engines_real import real_engine  # noqa: F401

collect_ignore_glob = [] if os.environ.get("RATCHET_ENGINES") == "1" else ["test_pooling.py"]
"""What needs more than `make setup` brings is collected only by `make test-engines`."""


@pytest.fixture(scope="session", params=["fake", pytest.param("real", marks=[pytest.mark.real, pytest.mark.slow])])
def started(request: pytest.FixtureRequest) -> EngineRecord | None:
    """The real engine, or None for a fake of the test's own. Of session scope, so that it is there before a test begins."""
    found: EngineRecord | None = request.getfixturevalue("real_engine") if request.param == "real" else None
    return found


@pytest.fixture
async def site(started: EngineRecord | None) -> AsyncIterator[Site]:
    if started is not None:
        engine = connect(started)
        yield Site(engine, wire(started.kind), real=True)
        await engine.close()
        return
    async with fake_engine(Faults(lacks=list(POOLING))) as (_, record):  # as a model that generates
        engine = connect(record)
        yield Site(engine, wire(record.kind), real=False)
        await engine.close()


@pytest.fixture
def loading(site: Site) -> Site:
    """An engine that loads adapters while it runs."""
    assert site.engine.brings == "load"
    return site


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=240)) as found:
        yield found
