"""Spools: who holds one, what it may take, what is drained, and what the living take over from the dead."""

from __future__ import annotations

import asyncio
import errno
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from ratchet.buffer.spool import REFUSED, Spool, Survey, set_aside, survey
from ratchet.buffer.spool import spool as spools
from ratchet.buffer.spool.segments import OVERHEAD

SEGMENT = 1024
ROOM = 2**20
HOLDER = """
import sys
from pathlib import Path
from ratchet.buffer.spool import Spool
spool = Spool.create(Path(sys.argv[1]), 4096, 2**20)
spool.append([b"one", b"two"])
print("held", flush=True)
sys.stdin.read()
"""


def records(count: int, size: int = 100) -> list[bytes]:
    return [bytes([i]) * size for i in range(count)]


def drained(spool: Spool, room: int = ROOM) -> list[bytes]:
    got: list[bytes] = []
    while batch := spool.read(room).records:
        got += batch
        spool.drained()
    return got


def segments(root: Path) -> list[Path]:
    return sorted(root.glob("*/*.seg"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def test_what_is_appended_is_drained_in_order_and_its_segments_go(root: Path) -> None:
    spool = Spool.create(root, SEGMENT, ROOM)
    assert spool.append(records(30)) == 30
    assert len(segments(root)) == 4
    assert spool.waiting == 30 * (100 + OVERHEAD)
    assert spool.read(250).records == spool.read(250).records == records(3)
    assert drained(spool, 250) == records(30)
    assert spool.waiting == 0
    assert len(segments(root)) == 1 and not any(segments(root)[0].read_bytes())
    spool.close()
    assert list(root.iterdir()) == []


def test_a_segment_is_kept_until_all_in_it_is_drained(root: Path) -> None:
    spool = Spool.create(root, SEGMENT, ROOM)
    spool.append(records(10))
    spool.read(ROOM)
    spool.close()
    left = Spool.adopt(root)
    assert left is not None
    assert drained(left) == records(10)
    left.close()


def test_the_spools_together_never_take_more_than_they_may(root: Path) -> None:
    one, two = Spool.create(root, SEGMENT, 3 * SEGMENT), Spool.create(root, SEGMENT, 3 * SEGMENT)
    one.grow()
    assert two.append(records(30)) == 16
    with pytest.raises(OSError, match="max_spool_mb") as full:
        two.append(records(1, 500))
    assert full.value.errno == errno.EDQUOT
    assert one.append(records(8)) == 8
    assert sum(path.stat().st_size for path in segments(root)) == 3 * SEGMENT
    assert drained(two) == records(16)
    assert two.append(records(1)) == 1
    for spool in (one, two):
        spool.close()


def test_room_that_was_allocated_stays_after_draining_and_is_given_back_when_told(root: Path) -> None:
    spool = Spool.create(root, SEGMENT, ROOM)
    for _ in range(4):
        spool.grow()
    spool.append(records(1))
    drained(spool)
    assert spool.free == 4 * SEGMENT
    spool.trim(2 * SEGMENT)
    assert spool.free == 2 * SEGMENT == sum(path.stat().st_size for path in segments(root))
    spool.close()


def test_a_record_larger_than_a_segment_gets_one_of_its_size(root: Path) -> None:
    spool = Spool.create(root, SEGMENT, ROOM)
    many = [b"first", b"x" * 5000, *records(3)]
    assert spool.append(many) == 5
    assert drained(spool) == many
    spool.close()


async def test_a_spool_is_adopted_when_its_holder_was_killed_and_never_before(root: Path) -> None:
    holder = await asyncio.create_subprocess_exec(sys.executable, "-c", HOLDER, str(root), stdout=PIPE, stdin=PIPE)
    assert holder.stdout is not None and await holder.stdout.readline() == b"held\n"
    assert Spool.adopt(root) is None
    holder.kill()
    await holder.communicate()
    mine = Spool.adopt(root)
    assert mine is not None
    assert Spool.adopt(root) is None
    assert drained(mine) == [b"one", b"two"]
    mine.close()
    assert list(root.iterdir()) == []


def test_a_folder_that_is_no_spool_is_left_alone_and_an_empty_one_goes(root: Path) -> None:
    assert Spool.adopt(root) is None
    for name in ("foreign", "begun"):
        (root / name).mkdir(parents=True)
    (root / "foreign" / "notes.txt").write_text("mine")
    (root / "file").write_text("")
    found = Spool.adopt(root)
    assert found is not None and found.folder.name == "begun"
    found.close()
    assert Spool.adopt(root) is None
    assert sorted(path.name for path in root.iterdir()) == ["file", "foreign"]


def test_a_damaged_spool_gives_what_is_whole_and_says_what_is_not(root: Path) -> None:
    spool = Spool.create(root, SEGMENT, ROOM)
    spool.append(records(12))
    spool.close()
    first, second = segments(root)
    first.write_bytes(first.read_bytes()[:130] + b"?" + first.read_bytes()[131:])
    second.write_bytes(second.read_bytes()[: 3 * (100 + OVERHEAD) + 50])
    left = Spool.adopt(root)
    assert left is not None
    batch = left.read(ROOM)
    assert (batch.records, batch.damaged) == (records(8)[:1] + records(8)[2:], 1)
    left.drained()
    batch = left.read(ROOM)
    assert (batch.records, batch.damaged) == (records(12)[8:11], 1)
    left.drained()
    left.close()
    assert list(root.iterdir()) == []


def test_a_disk_that_fails_loses_no_record_that_was_on_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool.create(root, SEGMENT, ROOM)
    spool.append(records(2))

    def fails(file: int) -> None:
        raise OSError(errno.EIO, "the disk failed")

    with monkeypatch.context() as patched:
        patched.setattr("ratchet.buffer.spool.segments.os.fdatasync", fails)
        with pytest.raises(OSError, match="the disk failed"):
            spool.append(records(4))
    assert spool.append([b"later"]) == 1
    assert drained(spool) == [*records(2), b"later"]
    spool.close()


def test_what_the_store_refuses_is_kept_apart_within_a_bound_and_can_be_tried_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root.mkdir()
    monkeypatch.setattr(spools, "REFUSED_BYTES", 300)
    assert [set_aside(root, record) for record in records(3)] == [True, True, False]
    spool = Spool.create(root, SEGMENT, ROOM)
    spool.append(records(5))
    assert survey(root) == Survey(waiting=5, bytes=5 * (100 + OVERHEAD), refused=2)
    assert Spool.adopt(root) is None
    (root / REFUSED).rename(root / "again")
    again = Spool.adopt(root)
    assert again is not None
    assert drained(again) == records(2)
    for held in (again, spool):
        held.close()


def test_nothing_lies_in_a_spool_that_was_never_made(root: Path) -> None:
    assert survey(root) == Survey(0, 0, 0)
