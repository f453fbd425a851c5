from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from learner import checkpoint, durable, update
from learner.algorithms.grpo import GrpoConfig
from learner.model import Policy
from learner.optim import AdamW
from ratchet.config.model import LoraConfig
from ratchet.errors import AdapterError
from tests.unit.learner import tiny

FILES = ["adapter.safetensors", "optimiser.safetensors", "state.json"]


@pytest.fixture
def moved(policy: Policy) -> tuple[Policy, AdamW]:
    optimiser = AdamW(policy.parameters(), learning_rate=0.01)
    update.step(policy, optimiser, [tiny.group(policy, 1, [0.0, 1.0])], GrpoConfig())
    return policy, optimiser


def in_a_new_process(base: Path, directory: Path, digest: str, first: int, last: int) -> list[str]:
    argv = [sys.executable, "-m", "tests.unit.learner.resume", str(base), str(directory), digest, str(first), str(last)]
    done = subprocess.run(argv, cwd=Path(__file__).parents[3], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.slow
def test_a_run_resumed_in_a_new_process_writes_the_same_bytes_as_one_that_was_not_stopped(base: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as at_once:
        running = at_once.submit(in_a_new_process, base, tmp_path / "whole", "-", 0, 4)
        half = in_a_new_process(base, tmp_path / "parts", "-", 0, 2)
        whole = running.result()
    assert in_a_new_process(base, tmp_path / "parts", half[0], 2, 4) == whole
    for name in FILES:
        assert (tmp_path / "parts" / whole[0] / name).read_bytes() == (tmp_path / "whole" / whole[0] / name).read_bytes()


def test_what_is_loaded_is_what_was_saved(base: Path, moved: tuple[Policy, AdamW], tmp_path: Path) -> None:
    rng = {"bit_generator": "PCG64", "state": 2**127 - 1}
    digest = checkpoint.save(tmp_path, *moved, 5, rng)
    fresh = tiny.load(base, seed=9)
    optimiser = AdamW(fresh.parameters(), learning_rate=0.01)
    found = checkpoint.load(tmp_path, digest)
    found.restore(fresh, optimiser)
    assert (found.step, found.rng) == (5, rng)
    assert fresh.adapter_files() == moved[0].adapter_files()
    assert optimiser.state().keys() == moved[1].state().keys()
    assert all(torch.equal(value, moved[1].state()[name]) for name, value in optimiser.state().items())


def test_a_checkpoint_before_the_first_step_brings_back_a_fresh_optimiser(policy: Policy, tmp_path: Path) -> None:
    optimiser = AdamW(policy.parameters(), learning_rate=0.01)
    digest = checkpoint.save(tmp_path, policy, optimiser, 0, {})
    update.step(policy, optimiser, [tiny.group(policy, 1, [0.0, 1.0])], GrpoConfig())
    checkpoint.load(tmp_path, digest).restore(policy, optimiser)
    assert optimiser.state() == {}


def test_the_folder_is_named_by_the_digest_and_holds_no_pickle(moved: tuple[Policy, AdamW], tmp_path: Path) -> None:
    digest = checkpoint.save(tmp_path, *moved, 1, {})
    assert [p.name for p in tmp_path.iterdir()] == [digest]
    assert sorted(p.name for p in (tmp_path / digest).iterdir()) == FILES


def test_saving_the_same_state_twice_gives_the_same_digest_and_one_folder(moved: tuple[Policy, AdamW], tmp_path: Path) -> None:
    first = checkpoint.save(tmp_path, *moved, 1, {"a": 1, "b": 2})
    assert checkpoint.save(tmp_path, *moved, 1, {"b": 2, "a": 1}) == first
    assert checkpoint.save(tmp_path, *moved, 2, {}) != first
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_a_damaged_checkpoint_is_refused(moved: tuple[Policy, AdamW], tmp_path: Path, name: str, damage: str) -> None:
    digest = checkpoint.save(tmp_path, *moved, 1, {})
    path = tmp_path / digest / name
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]) if damage == "flip" else data[: len(data) // 2])
    if damage == "gone":
        path.unlink()
    with pytest.raises(AdapterError, match=f"{name} is damaged|is missing {name}"):
        checkpoint.load(tmp_path, digest)


@pytest.mark.parametrize("digest", ["../../etc", "", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_a_name_that_is_no_digest_never_becomes_a_path(tmp_path: Path, digest: str) -> None:
    with pytest.raises(AdapterError, match="64 hex digits"):
        checkpoint.load(tmp_path, digest)


def test_a_checkpoint_of_another_base_is_refused_and_changes_nothing(moved: tuple[Policy, AdamW], tmp_path: Path) -> None:
    digest = checkpoint.save(tmp_path / "c", *moved, 1, {})
    other = tiny.load(tiny.save_base(tmp_path / "base", seed=8))
    before = other.adapter_files()
    with pytest.raises(AdapterError, match="another base"):
        checkpoint.load(tmp_path / "c", digest).restore(other, AdamW(other.parameters(), learning_rate=0.01))
    assert other.adapter_files() == before


def test_a_checkpoint_of_another_rank_is_refused(base: Path, moved: tuple[Policy, AdamW], tmp_path: Path) -> None:
    digest = checkpoint.save(tmp_path, *moved, 1, {})
    other = tiny.load(base, lora=LoraConfig(rank=2))
    with pytest.raises(AdapterError, match="rank 2"):
        checkpoint.load(tmp_path, digest).restore(other, AdamW(other.parameters(), learning_rate=0.01))


def test_a_sweep_keeps_what_a_commit_names_and_what_is_not_ours(moved: tuple[Policy, AdamW], tmp_path: Path) -> None:
    kept, lost = (checkpoint.save(tmp_path, *moved, step, {}) for step in (1, 2))
    (tmp_path / f"{durable.ASIDE}half").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    assert checkpoint.sweep(tmp_path, {kept}) == sorted([lost, f"{durable.ASIDE}half"])
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([kept, "notes.txt"])
    assert checkpoint.load(tmp_path, kept).step == 1


def test_a_sweep_of_nothing_is_nothing(tmp_path: Path) -> None:
    assert checkpoint.sweep(tmp_path / "none", set()) == []


def test_an_rng_that_is_no_json_is_refused_before_anything_is_written(moved: tuple[Policy, AdamW], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        checkpoint.save(tmp_path, *moved, 1, {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_whose_writing_fails_is_never_seen(tmp_path: Path) -> None:
    def write() -> None:
        with durable.folder(tmp_path / "whole") as aside:
            (aside / "half").write_text("x")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_of_two_writers_of_one_folder_the_first_stays(tmp_path: Path) -> None:
    with durable.folder(tmp_path / "x") as slow, durable.folder(tmp_path / "x") as fast:
        (slow / "f").write_text(json.dumps("slow"))
        (fast / "f").write_text(json.dumps("fast"))
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    assert json.loads((tmp_path / "x" / "f").read_text()) == "fast"
