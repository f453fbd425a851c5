from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from learner import update
from learner.algorithms.grpo import GrpoConfig
from learner.policy import checkpoint
from learner.policy.model import Policy
from learner.policy.optim import AdamW
from ratchet.adapters import ArtifactStore
from ratchet.config.model import LoraConfig
from ratchet.durable import UNFINISHED
from ratchet.errors import AdapterError
from tests.unit.learner import tiny_policy

FILES = ["adapter.safetensors", "optimiser.safetensors", "state.json"]
NAME = "support"


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the checkpoints of NAME are."""
    return tmp_path / "checkpoints" / NAME


@pytest.fixture
def moved(policy: Policy) -> tuple[Policy, AdamW]:
    optimiser = AdamW(policy.parameters(), learning_rate=0.01)
    update.step(policy, optimiser, [tiny_policy.group(policy, 1, [0.0, 1.0])], GrpoConfig().make())
    return policy, optimiser


def in_a_new_process(base: Path, directory: Path, digest: str, first: int, last: int) -> list[str]:
    argv = [sys.executable, "-m", "tests.unit.learner.training_process", str(base), str(directory), digest, str(first), str(last)]
    done = subprocess.run(argv, cwd=Path(__file__).parents[3], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def read(data: Path, digest: str, name: str) -> bytes:
    return (data / "checkpoints" / NAME / digest / name).read_bytes()


@pytest.mark.slow
def test_a_run_resumed_in_a_new_process_writes_the_same_bytes_as_one_that_was_not_stopped(base: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as at_once:
        running = at_once.submit(in_a_new_process, base, tmp_path / "whole", "-", 0, 4)
        half = in_a_new_process(base, tmp_path / "parts", "-", 0, 2)
        whole = running.result()
    assert in_a_new_process(base, tmp_path / "parts", half[0], 2, 4) == whole
    for name in FILES:
        assert read(tmp_path / "parts", whole[0], name) == read(tmp_path / "whole", whole[0], name)


def test_what_is_loaded_is_what_was_saved(base: Path, moved: tuple[Policy, AdamW], store: ArtifactStore) -> None:
    rng = {"bit_generator": "PCG64", "state": 2**127 - 1}
    digest = checkpoint.save(store, NAME, *moved, step=5, rng=rng)
    fresh = tiny_policy.load(base, seed=9)
    optimiser = AdamW(fresh.parameters(), learning_rate=0.01)
    found = checkpoint.load(store, NAME, digest)
    found.restore(fresh, optimiser)
    assert (found.step, found.rng, found.algorithm) == (5, rng, {})
    assert fresh.adapter_files() == moved[0].adapter_files()
    assert optimiser.state().keys() == moved[1].state().keys()
    assert all(torch.equal(value, moved[1].state()[name]) for name, value in optimiser.state().items())


def test_the_algorithms_own_state_comes_back_and_is_part_of_the_digest(moved: tuple[Policy, AdamW], store: ArtifactStore) -> None:
    state = {"baseline": {"support": 0.125}, "seen": 12, "names": ["a", None]}
    digest = checkpoint.save(store, NAME, *moved, step=1, rng={}, algorithm=state)
    assert checkpoint.load(store, NAME, digest).algorithm == state
    assert checkpoint.save(store, NAME, *moved, step=1, rng={}) != digest


def test_a_checkpoint_is_fetched_from_the_shared_folder_and_deleted_there_too(moved: tuple[Policy, AdamW], tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    here, there = ArtifactStore(tmp_path / "here", shared), ArtifactStore(tmp_path / "there", shared)
    digest = checkpoint.save(here, NAME, *moved, step=4, rng={})
    assert checkpoint.load(there, NAME, digest).step == 4
    assert checkpoint.sweep(there, NAME, set()) == [digest]
    assert list(shared.iterdir()) == []


def test_a_checkpoint_before_the_first_step_brings_back_a_fresh_optimiser(policy: Policy, store: ArtifactStore) -> None:
    optimiser = AdamW(policy.parameters(), learning_rate=0.01)
    digest = checkpoint.save(store, NAME, policy, optimiser, step=0, rng={})
    update.step(policy, optimiser, [tiny_policy.group(policy, 1, [0.0, 1.0])], GrpoConfig().make())
    checkpoint.load(store, NAME, digest).restore(policy, optimiser)
    assert optimiser.state() == {}


def test_the_folder_is_named_by_the_digest_and_holds_no_pickle(moved: tuple[Policy, AdamW], store: ArtifactStore, folder: Path) -> None:
    digest = checkpoint.save(store, NAME, *moved, step=1, rng={})
    assert [p.name for p in folder.iterdir()] == [digest]
    assert sorted(p.name for p in (folder / digest).iterdir()) == FILES


def test_saving_the_same_state_twice_gives_the_same_digest_and_one_folder(
    moved: tuple[Policy, AdamW], store: ArtifactStore, folder: Path
) -> None:
    first = checkpoint.save(store, NAME, *moved, step=1, rng={"a": 1, "b": 2})
    assert checkpoint.save(store, NAME, *moved, step=1, rng={"b": 2, "a": 1}) == first
    assert checkpoint.save(store, NAME, *moved, step=2, rng={}) != first
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flip", "cut", "missing"])
def test_a_damaged_checkpoint_is_refused(moved: tuple[Policy, AdamW], store: ArtifactStore, folder: Path, name: str, damage: str) -> None:
    digest = checkpoint.save(store, NAME, *moved, step=1, rng={})
    path = folder / digest / name
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]) if damage == "flip" else data[: len(data) // 2])
    if damage == "missing":
        path.unlink()
    with pytest.raises(AdapterError, match=rf"{name} has another sha256|not exactly \[.*{name}|cannot be read"):
        checkpoint.load(store, NAME, digest)


@pytest.mark.parametrize("digest", ["../../etc", "", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_a_name_that_is_no_digest_never_becomes_a_path(store: ArtifactStore, digest: str) -> None:
    with pytest.raises(AdapterError, match="64 hex digits"):
        checkpoint.load(store, NAME, digest)


def test_a_checkpoint_of_another_base_is_refused_and_changes_nothing(
    moved: tuple[Policy, AdamW], store: ArtifactStore, tmp_path: Path
) -> None:
    digest = checkpoint.save(store, NAME, *moved, step=1, rng={})
    other = tiny_policy.load(tiny_policy.save_base(tmp_path / "base", seed=8))
    before = other.adapter_files()
    with pytest.raises(AdapterError, match="another base"):
        checkpoint.load(store, NAME, digest).restore(other, AdamW(other.parameters(), learning_rate=0.01))
    assert other.adapter_files() == before


def test_a_checkpoint_of_another_rank_is_refused(base: Path, moved: tuple[Policy, AdamW], store: ArtifactStore) -> None:
    digest = checkpoint.save(store, NAME, *moved, step=1, rng={})
    other = tiny_policy.load(base, lora=LoraConfig(rank=2))
    with pytest.raises(AdapterError, match="rank 2"):
        checkpoint.load(store, NAME, digest).restore(other, AdamW(other.parameters(), learning_rate=0.01))


def test_a_sweep_keeps_what_a_commit_names_and_what_is_not_ours(moved: tuple[Policy, AdamW], store: ArtifactStore, folder: Path) -> None:
    kept, lost = (checkpoint.save(store, NAME, *moved, step=step, rng={}) for step in (1, 2))
    (folder / f"{UNFINISHED}half").mkdir()
    (folder / "notes.txt").write_text("mine")
    assert checkpoint.sweep(store, NAME, {kept}) == sorted([lost, f"{UNFINISHED}half"])
    assert sorted(p.name for p in folder.iterdir()) == sorted([kept, "notes.txt"])
    assert checkpoint.load(store, NAME, kept).step == 1


def test_a_sweep_of_nothing_is_nothing(store: ArtifactStore) -> None:
    assert checkpoint.sweep(store, NAME, set()) == []


def test_an_rng_that_is_no_json_is_refused_before_anything_is_written(
    moved: tuple[Policy, AdamW], store: ArtifactStore, folder: Path
) -> None:
    with pytest.raises(ValueError, match="JSON"):
        checkpoint.save(store, NAME, *moved, step=1, rng={"x": float("nan")})
    assert not folder.exists()
