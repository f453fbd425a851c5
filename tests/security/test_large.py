"""Row 13 of reliability.md: headers and bodies too large are refused before they are held."""

from __future__ import annotations

import asyncio
import gzip
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.fault_figures import FULL, measured
from tests.support.gateway_process import Bench, bench, until
from tests.support.raw_http import Answer, Wire, head

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]
TIMES = 50 if FULL else 5
MOST_GROWTH = 20 * 2**20
MIB = 2**20
CHAT, FEEDBACK = "/v1/chat/completions", "/v1/feedback"
KEY = "Bearer rk-client"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    """A gateway with no engine: nothing here gets as far."""
    async with bench(tmp_path_factory.mktemp("large"), engines=0) as made:
        await warm(made)
        yield made


async def warm(made: Bench) -> None:
    """What any first requests bring into memory."""
    for path in ("/nowhere", CHAT, FEEDBACK):
        await asyncio.gather(*(made.call("POST", path, b" " * MIB) for _ in range(4)))


def memory(made: Bench, what: str) -> int:
    """Bytes: `VmRSS` now, or `VmHWM`, the most since `forget`."""
    assert made.process is not None
    found = re.search(rf"{what}:\s+(\d+) kB", Path(f"/proc/{made.process.pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def forget(made: Bench) -> int:
    """Starts the most resident memory anew; what is resident now."""
    assert made.process is not None
    Path(f"/proc/{made.process.pid}/clear_refs").write_text("5")
    return memory(made, "VmRSS")


async def told(made: Bench, start: bytes, piece: bytes, count: int) -> Answer:
    """The answer to `start` and then `count` times `piece`, which goes on after the answer until the connection is closed."""
    wire = await Wire.open(made.url)
    await wire.send(start)
    answer = asyncio.ensure_future(wire.answer())
    for _ in range(count):
        if wire.writer.transport.is_closing():
            break
        await wire.send(piece)
    try:
        return await answer
    finally:
        wire.close()


def declared(path: str, size: int) -> bytes:
    return head("POST", path, authorization=KEY, content_length=str(size))


def chunked(path: str, **headers: str) -> bytes:
    return head("POST", path, authorization=KEY, transfer_encoding="chunked", **headers)


CHUNK = b"%x\r\n%b\r\n" % (2**16, b"x" * 2**16)
BOMB = gzip.compress(b"[" * 2**25)
ATTACKS = {
    "an 8 MiB header": (b"GET /v1/models HTTP/1.1\r\nx: ", b"a" * 2**16, 128, 431),
    "an 8 MiB path": (b"GET /", b"a" * 2**16, 128, 431),
    "a million headers": (b"GET /v1/models HTTP/1.1\r\n", b"a: b\r\n" * 2**13, 128, 431),
    "a 200 MiB body, declared": (declared(CHAT, 200 * MIB), b"x" * 2**16, 3200, 413),
    "200 MiB of feedback, declared": (declared(FEEDBACK, 200 * MIB), b"x" * 2**16, 3200, 413),
    "a 200 MiB body in chunks": (chunked(CHAT), CHUNK, 3200, 413),
    "200 MiB of feedback in chunks": (chunked(FEEDBACK), CHUNK, 3200, 413),
    "a gzip bomb": (chunked(CHAT, content_encoding="gzip"), b"%x\r\n%b\r\n" % (len(BOMB), BOMB), 1, 415),
    "a 200 MiB body for nobody": (head("POST", "/nowhere", content_length=str(200 * MIB)), b"x" * 2**16, 3200, 404),
    "a 200 MiB body without a key": (head("POST", CHAT, content_length=str(200 * MIB)), b"x" * 2**16, 3200, 401),
}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_what_is_too_large_is_refused_and_memory_stays(door: Bench, attack: str) -> None:
    start, piece, count, status = ATTACKS[attack]
    before = forget(door)
    for _ in range(TIMES):
        answer = await told(door, start, piece, count)
        assert (answer.status, "code" in answer.error) == (status, True)
    growth = memory(door, "VmHWM") - before
    measured(f"{TIMES} times {attack}: {growth / MIB:.1f} MiB at most")
    assert growth <= MOST_GROWTH


async def test_all_bodies_together_are_bounded_and_what_does_not_fit_may_try_again(tmp_path: Path) -> None:
    limits = {"max_bodies_bytes": 4 * MIB, "max_body_bytes": 4 * MIB, "max_feedback_bytes": MIB}
    async with bench(tmp_path, engines=0, limits=limits) as made:
        await warm(made)
        before = forget(made)
        held = [await Wire.open(made.url) for _ in range(20)]
        for wire in held:
            await wire.send(chunked(CHAT) + CHUNK * 15)  # 0.94 MiB each, and no end

        async def full() -> bool:
            return (await made.call("POST", CHAT, b" " * MIB)).status_code == 503

        await until(full, "no more is taken")
        answer = await made.call("POST", CHAT, b" " * MIB)
        assert (answer.json()["error"]["code"], answer.headers["retry-after"]) == ("overloaded", "1")
        assert (await made.call("POST", "/admin/policies/support/rollback", b" {}", key="operator")).status_code != 503
        growth = memory(made, "VmHWM") - before
        measured(f"20 MiB offered, 4 MiB held: {growth / MIB:.1f} MiB at most")
        assert growth <= MOST_GROWTH
        for wire in held:
            wire.close()

        async def free() -> bool:
            return (await made.call("POST", CHAT, b" " * 3 * MIB)).status_code == 400

        await until(free, "what was held is given back")
