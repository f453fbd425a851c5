"""Row 10 of reliability.md: whatever happens to an adapter on disk, it is refused before an engine sees it."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from ratchet.adapters import CONFIG, WEIGHTS, ArtifactStore, manifest_of, verify
from ratchet.errors import AdapterError
from ratchet.types import PolicyVersionRecord
from tests.support.fault_figures import FULL, measured
from tests.support.small_adapters import BASE, RANK, configuration, weights, written

TRIALS = 600 if FULL else 60
Spoil = Callable[[Path, PolicyVersionRecord, random.Random], PolicyVersionRecord]


def one_of(folder: Path, rng: random.Random) -> Path:
    return rng.choice([folder / CONFIG, folder / WEIGHTS, manifest_of(folder)])


def truncated(folder: Path, record: PolicyVersionRecord, rng: random.Random) -> PolicyVersionRecord:
    path = one_of(folder, rng)
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content))])
    return record


def bit_flipped(folder: Path, record: PolicyVersionRecord, rng: random.Random) -> PolicyVersionRecord:
    path = one_of(folder, rng)
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice([1, 1, 8])):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    return record


def tail_zeroed(folder: Path, record: PolicyVersionRecord, rng: random.Random) -> PolicyVersionRecord:
    path = one_of(folder, rng)
    content = path.read_bytes()
    start = rng.randrange(len(content))
    path.write_bytes(content[:start] + bytes(len(content) - start))
    return record


def pickle_renamed(folder: Path, record: PolicyVersionRecord, rng: random.Random) -> PolicyVersionRecord:
    """What torch.save writes under the name of a safetensors file, with and without a manifest that agrees."""
    content = b"\x80\x02}q\x00X\x01\x00\x00\x00aq\x01K\x01s." + rng.randbytes(rng.randrange(200))
    if rng.random() < 0.5:
        (folder / WEIGHTS).write_bytes(content)
        return record
    return written(_data(folder), {CONFIG: configuration(), WEIGHTS: content})[1]


def file_added(folder: Path, record: PolicyVersionRecord, rng: random.Random) -> PolicyVersionRecord:
    (folder / rng.choice(["adapter_model.bin", "pytorch_model.bin", "x.pt", ".hidden", "README.md"])).write_bytes(rng.randbytes(9))
    return record


def file_taken(folder: Path, record: PolicyVersionRecord, rng: random.Random) -> PolicyVersionRecord:
    path = one_of(folder, rng)
    if rng.random() < 0.5:
        path.unlink()
    else:
        path.rename(path.with_suffix(".bin"))
    return record


def rank_wrong(folder: Path, record: PolicyVersionRecord, rng: random.Random) -> PolicyVersionRecord:
    """Well-formed and honestly signed, but of another rank: everywhere, or in the weights alone."""
    rank = rng.choice([1, 2, 8, 16])
    if rng.random() < 0.5:
        return written(_data(folder), {CONFIG: configuration(r=rank), WEIGHTS: weights(rank)}, rank=rank)[1]
    return written(_data(folder), {CONFIG: configuration(), WEIGHTS: weights(rank)})[1]


def base_wrong(folder: Path, record: PolicyVersionRecord, rng: random.Random) -> PolicyVersionRecord:
    return written(_data(folder), base=f"other-{rng.randrange(99)}")[1]


def swapped(folder: Path, record: PolicyVersionRecord, rng: random.Random) -> PolicyVersionRecord:
    """A whole, honest adapter, but of another version."""
    other, _ = written(_data(folder), version=8)
    shutil.rmtree(folder)
    shutil.copytree(other, folder)
    shutil.copyfile(manifest_of(other), manifest_of(folder))
    return record


def digest_forged(folder: Path, record: PolicyVersionRecord, rng: random.Random) -> PolicyVersionRecord:
    return msgspec.structs.replace(record, digest=record.digest[:12] + rng.randbytes(26).hex())


def _data(folder: Path) -> Path:
    return folder.parents[2]


WAYS: list[Spoil] = [
    truncated,
    bit_flipped,
    tail_zeroed,
    pickle_renamed,
    file_added,
    file_taken,
    rank_wrong,
    base_wrong,
    swapped,
    digest_forged,
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_spoiled_adapter_is_refused_every_time(tmp_path: Path, way: Spoil) -> None:
    outcomes = []
    for trial in range(TRIALS // len(WAYS)):
        data = tmp_path / str(trial)
        data.mkdir()
        folder, record = written(data)
        verify(ArtifactStore(data), record, rank=RANK, base=BASE)
        spoiled = way(folder, record, random.Random(trial))
        try:
            verify(ArtifactStore(data), spoiled, rank=RANK, base=BASE)
            outcomes.append("taken")
        except AdapterError as error:
            assert "\n" not in str(error)
            outcomes.append("refused")
    assert outcomes == ["refused"] * (TRIALS // len(WAYS))
    measured("%d of %d refused", len(outcomes), TRIALS // len(WAYS))
