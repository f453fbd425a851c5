"""ratchet.models: what a configured path stands for."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ratchet import models
from ratchet.errors import ConfigError

CONVERTER = """
import os, pathlib, sys
out = pathlib.Path(sys.argv[1])
aside = out.with_name("aside")
aside.mkdir()
(aside / "config.json").write_text("{}")
with open(out.with_name("runs"), "a") as log:
    log.write("x")
aside.rename(out)
"""


@pytest.fixture
def prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation with no built-in model and a small converter in its place."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "small_converter.py").write_text(CONVERTER)
    monkeypatch.setenv("PYTHONPATH", str(package))
    monkeypatch.setattr(models, "CONVERTER", "small_converter")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "prefix"))
    return tmp_path / "prefix"


def test_a_folder_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    assert models.resolve("tiny") == str(tmp_path / "tiny")
    assert models.present("tiny")


def test_a_hub_id_is_left_to_the_engine() -> None:
    assert models.resolve("HuggingFaceTB/SmolLM2-135M-Instruct") == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert not models.present("HuggingFaceTB/SmolLM2-135M-Instruct")


@pytest.mark.parametrize("path", ["./missing", "/missing/folder", "~/missing-folder"])
def test_a_path_to_nothing_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        models.resolve(path)


def test_the_built_in_model_is_made_once_by_many_at_a_time(prefix: Path) -> None:
    assert not models.present("smollm2")
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(models.resolve, ["smollm2"] * 4))
    assert found == {str(prefix / "share" / "ratchet" / "smollm2")}
    assert (prefix / "share" / "ratchet" / "runs").read_text() == "x"
    assert models.present("smollm2")


def test_a_failed_conversion_is_one_line(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "CONVERTER", "no_such_converter")
    with pytest.raises(ConfigError, match=r"^the built-in model could not be made: .*no_such_converter.*$"):
        models.resolve("smollm2")


def test_a_read_only_installation_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="cannot be written there"):
        models.resolve("smollm2")
