"""Adapters on disk: whole or absent, and what their manifest says."""

from __future__ import annotations

import math
import os
from pathlib import Path

import msgspec
import numpy as np
import pytest

from ratchet.adapters import CONFIG, WEIGHTS, ArtifactStore, Manifest, engine_name, folder_of, manifest_of, verify, write
from ratchet.adapters.artifacts import digest
from ratchet.errors import AdapterError
from tests.support.small_adapters import ALPHA, BASE, POLICY, RANK, configuration, lineage, weights, written

A = "base_model.model.layers.0.self_attn.q_proj.lora_A.weight"
B = "base_model.model.layers.0.self_attn.q_proj.lora_B.weight"


def refused(data: Path, content: dict[str, bytes], match: str, **fields: object) -> None:
    _, record = written(data, content, **fields)
    with pytest.raises(AdapterError, match=match):
        verify(ArtifactStore(data), record, rank=RANK, base=BASE)


def test_a_written_adapter_is_verified_and_its_manifest_returned(tmp_path: Path) -> None:
    folder, record = written(tmp_path)
    manifest = verify(ArtifactStore(tmp_path), record, rank=RANK, base=BASE)
    assert record.path == f"adapters/support/7-{record.digest[:12]}"
    assert {entry.name for entry in folder.iterdir()} == {CONFIG, WEIGHTS}
    assert manifest.files == {CONFIG: digest(configuration()), WEIGHTS: digest(weights())}
    assert (manifest.parent, manifest.alpha, manifest.consumed, manifest.algorithm["beta"]) == (6, ALPHA, ["g1"], 0.1)
    assert digest(manifest_of(folder).read_bytes()) == record.digest


def test_the_same_adapter_twice_is_the_same_folder_and_digest(tmp_path: Path) -> None:
    first, record = written(tmp_path)
    (first / WEIGHTS).write_bytes(b"damaged by a crash")
    second, again = written(tmp_path)
    assert (first, record) == (second, again)
    verify(ArtifactStore(tmp_path), again, rank=RANK, base=BASE)


def test_an_interrupted_write_is_swept_by_a_later_one(tmp_path: Path) -> None:
    place = tmp_path / "adapters" / POLICY
    (place / ".tmp-1").mkdir(parents=True)
    (place / ".tmp-1" / WEIGHTS).write_bytes(b"half")
    (place / ".tmp-2").write_bytes(b"half")
    for path in place.iterdir():
        os.utime(path, (0, 0))
    folder, _ = written(tmp_path)
    assert {entry.name for entry in place.iterdir()} == {folder.name, f"{folder.name}.json"}


@pytest.mark.parametrize(
    ("fields", "files"),
    [
        ({}, {CONFIG: b"{}"}),
        ({}, {CONFIG: b"{}", WEIGHTS: b"", "adapter_model.bin": b""}),
        ({"policy": "../up"}, None),
        ({"policy": "a/b"}, None),
        ({"version": 0}, None),
        ({"version": "seven"}, None),
        ({"surprise": 1}, None),
    ],
)
def test_what_is_no_adapter_is_not_written(tmp_path: Path, fields: dict[str, object], files: dict[str, bytes] | None) -> None:
    with pytest.raises(AdapterError):
        write(ArtifactStore(tmp_path), lineage(**fields), files or {CONFIG: configuration(), WEIGHTS: weights()})
    assert not any(tmp_path.parent.glob("up*"))
    assert list(tmp_path.rglob("*.json")) == []


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_refused(tmp_path: Path, value: float) -> None:
    matrix = np.zeros((RANK, 6), np.float32)
    matrix[1, 2] = value
    refused(tmp_path, {CONFIG: configuration(), WEIGHTS: weights(**{A: matrix})}, "not finite")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (weights(**{A: np.zeros((RANK + 1, 6), np.float32)}), "not of rank 4"),
        (weights(**{B: np.zeros((RANK, 5), np.float32)}), "not of rank 4"),
        (weights(**{A: np.zeros(RANK, np.float32)}), "not of rank 4"),
        (weights(**{B: None}), "no partner"),
        (weights(**{"model.embed.weight": np.zeros((2, 2), np.float32)}), "no LoRA matrix"),
        (weights(**{A: np.zeros((RANK, 6), np.int32)}), "dtype I32"),
        (b"", "no safetensors"),
        (weights()[:-1], "no safetensors"),
    ],
)
def test_weights_that_are_no_adapter_of_the_rank_are_refused(tmp_path: Path, content: bytes, match: str) -> None:
    refused(tmp_path, {CONFIG: configuration(), WEIGHTS: content}, match)


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_half_precision_is_read_and_its_infinities_found(tmp_path: Path, dtype: str) -> None:
    good = weights(**{A: np.ones((RANK, 6), np.float16)}).replace(b'"F16"', f'"{dtype}"'.encode())
    # One byte more in the header: re-declare its length.
    grown = len(dtype) - len("F16")
    size = int.from_bytes(good[:8], "little")
    header = good[8 : 8 + size + grown].rstrip(b" ")
    header += b" " * (-len(header) % 8)
    body = good[8 + size + grown :]
    content = len(header).to_bytes(8, "little") + header + body
    _, record = written(tmp_path, {CONFIG: configuration(), WEIGHTS: content})
    verify(ArtifactStore(tmp_path), record, rank=RANK, base=BASE)
    infinite = {"F16": b"\x00\x7c", "BF16": b"\x80\x7f"}[dtype]
    one = np.float16(1).tobytes()
    assert body.count(one * 24) == 1
    spoiled = content.replace(one * 24, infinite + one * 23)
    refused(tmp_path, {CONFIG: configuration(), WEIGHTS: spoiled}, "not finite", version=8)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"not json", "not JSON"),
        (b"[]", "no LoRA"),
        (configuration(peft_type="IA3"), "no LoRA"),
        (configuration(r=8), "rank 8"),
        (configuration(lora_alpha=16), "alpha 16"),
        (configuration(bias="all"), "bias"),
        (configuration(modules_to_save=["lm_head"]), "modules_to_save"),
        (configuration(rank_pattern={"q_proj": 2}), "rank_pattern"),
    ],
)
def test_a_configuration_that_says_otherwise_is_refused(tmp_path: Path, content: bytes, match: str) -> None:
    refused(tmp_path, {CONFIG: content, WEIGHTS: weights()}, match)


def test_another_rank_or_base_than_the_policys_is_refused(tmp_path: Path) -> None:
    _, record = written(tmp_path)
    with pytest.raises(AdapterError, match="rank"):
        verify(ArtifactStore(tmp_path), record, rank=RANK * 2, base=BASE)
    with pytest.raises(AdapterError, match="base"):
        verify(ArtifactStore(tmp_path), record, rank=RANK, base="other")


def test_a_record_can_name_no_place_but_its_own(tmp_path: Path) -> None:
    _, record = written(tmp_path)
    for path in ("", "/etc", "../7", record.path + "/..", record.path.replace("7-", "8-")):
        with pytest.raises(AdapterError):
            verify(ArtifactStore(tmp_path), msgspec.structs.replace(record, path=path), rank=RANK, base=BASE)
    for name, version, text in (("../x", 7, "0" * 64), (POLICY, 0, "0" * 64), (POLICY, 7, "../../x"), (POLICY, 7, "G" * 64)):
        with pytest.raises(AdapterError):
            folder_of(name, version, text)


@pytest.mark.parametrize("part", ["adapters", POLICY, "folder", CONFIG, WEIGHTS, "manifest"])
def test_a_symlink_anywhere_on_the_way_is_refused(tmp_path: Path, part: str) -> None:
    data, outside = tmp_path / "data", tmp_path / "outside"
    data.mkdir()
    folder, record = written(data)
    places = {"adapters": data / "adapters", POLICY: folder.parent, "folder": folder, "manifest": manifest_of(folder)}
    place = places.get(part, folder / part)
    place.rename(outside)
    place.symlink_to(outside)
    with pytest.raises(AdapterError, match="not a plain"):
        verify(ArtifactStore(data), record, rank=RANK, base=BASE)


def test_a_write_does_not_follow_a_symlink_out_of_the_data_directory(tmp_path: Path) -> None:
    data, outside = tmp_path / "data", tmp_path / "outside"
    (data / "adapters").mkdir(parents=True)
    outside.mkdir()
    (data / "adapters" / POLICY).symlink_to(outside)
    with pytest.raises(AdapterError, match="out of the data directory"):
        written(data)
    assert list(outside.iterdir()) == []


def test_a_missing_adapter_is_an_adapter_error(tmp_path: Path) -> None:
    folder, record = written(tmp_path)
    (folder / WEIGHTS).unlink()
    with pytest.raises(AdapterError, match="not exactly"):
        verify(ArtifactStore(tmp_path), record, rank=RANK, base=BASE)
    manifest_of(folder).unlink()
    with pytest.raises(AdapterError, match="cannot be read"):
        verify(ArtifactStore(tmp_path), record, rank=RANK, base=BASE)


def test_equal_manifests_are_equal_bytes() -> None:
    fields = lineage(files={})
    assert Manifest(**fields).encoded() == Manifest(**dict(reversed(fields.items()))).encoded()


def test_each_version_has_its_own_name_in_the_engine() -> None:
    assert engine_name(POLICY, 7) == "support@7"
