"""Segment files: what a crash or a bad disk may leave of one, and what is read of it."""

from __future__ import annotations

import errno
import random
import resource
from pathlib import Path

import pytest

from ratchet.buffer.spool.segments import HEAD, OVERHEAD, Segment

RECORDS = [bytes([i + 1]) * (50 + i) for i in range(10)]
ROOM = 2**20
MARK = 8


def written(folder: Path, records: list[bytes] = RECORDS, size: int = 4096) -> Path:
    """A segment with `records`, as its writer's death leaves it."""
    segment = Segment.create(folder, 1, size)
    segment.append(records)
    segment.close()
    return segment.path


def found(folder: Path) -> tuple[list[bytes], int]:
    """What somebody else reads of the only segment: its records, and the damage."""
    (segment,) = Segment.found(folder)
    read = segment.read(0, ROOM)
    segment.close()
    return read.records, read.damaged


def offset(index: int) -> int:
    return sum(OVERHEAD + len(record) for record in RECORDS[:index])


def test_what_was_appended_is_read_by_another_and_the_allocated_rest_is_nothing(tmp_path: Path) -> None:
    path = written(tmp_path)
    assert path.stat().st_size == 4096
    assert path.stat().st_blocks * 512 >= 4096
    assert path.stat().st_mode & 0o777 == 0o600
    assert found(tmp_path) == (RECORDS, 0)


def test_a_read_gives_a_record_at_least_and_ends_once_its_room_is_full(tmp_path: Path) -> None:
    written(tmp_path)
    (segment,) = Segment.found(tmp_path)
    first = segment.read(0, 1)
    assert first.records == RECORDS[:1]
    rest = segment.read(first.offset, 150)
    assert rest.records == RECORDS[1:4]
    assert segment.read(rest.offset, ROOM).records == RECORDS[4:]
    assert segment.used() == (len(RECORDS), offset(len(RECORDS)))
    segment.close()


def test_a_torn_tail_is_cut_wherever_it_was_torn(tmp_path: Path) -> None:
    path = written(tmp_path)
    whole = path.read_bytes()
    for end in range(offset(9) + 1, offset(10)):
        torn = whole[:end] + bytes(len(whole) - end)
        path.write_bytes(torn)
        records, damaged = found(tmp_path)
        mark = slice(offset(9), offset(9) + MARK)
        assert (records, bool(damaged)) == (RECORDS[:9], torn[mark] == whole[mark]), end  # a random mark may end in zeros
        path.write_bytes(whole[:end])
        assert found(tmp_path)[0] == RECORDS[:9]


def test_a_flipped_bit_costs_one_record_at_most(tmp_path: Path) -> None:
    path, rng = written(tmp_path), random.Random(1)
    whole = path.read_bytes()
    for _ in range(300):
        at, bit = rng.randrange(offset(10)), 1 << rng.randrange(8)
        path.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
        hit = next(i for i in range(10) if at < offset(i + 1))
        records, damaged = found(tmp_path)
        assert records == RECORDS[:hit] + RECORDS[hit + 1 :]
        assert damaged == 1 or (hit == 9 and at < offset(9) + MARK)


def test_a_stretch_of_zeros_costs_only_the_records_in_it(tmp_path: Path) -> None:
    path = written(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: offset(3)] + bytes(offset(5) - offset(3)) + whole[offset(5) :])
    assert found(tmp_path) == (RECORDS[:3] + RECORDS[5:], 1)


def test_a_record_hidden_in_what_a_client_sent_is_never_taken_for_one(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    forged = written(other, [b"forged"]).read_bytes()[: OVERHEAD + 6]
    path = written(tmp_path, [b"x" + forged + b"y", b"honest"])
    whole = path.read_bytes()
    path.write_bytes(bytes(HEAD.size) + whole[HEAD.size :])
    assert found(tmp_path) == ([b"honest"], 1)


def test_a_segment_without_room_on_the_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, hard))
    try:
        with pytest.raises(OSError) as refused:
            Segment.create(tmp_path, 1, 4096)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert refused.value.errno == errno.EFBIG
    assert not list(tmp_path.iterdir())


def test_a_cleared_segment_holds_nothing_of_what_was_in_it(tmp_path: Path) -> None:
    segment = Segment.create(tmp_path, 1, 4096)
    segment.append(RECORDS)
    segment.clear()
    assert segment.path.read_bytes() == bytes(4096)
    segment.append([b"new"])
    segment.close()
    assert found(tmp_path) == ([b"new"], 0)


def test_other_files_in_the_folder_are_none_of_its_business(tmp_path: Path) -> None:
    (tmp_path / "00000001-nothex.seg").write_bytes(b"")
    (tmp_path / "00000001-0011223344556677.txt").symlink_to("/dev/zero")
    assert Segment.found(tmp_path) == []
