"""Files and folders that appear whole or not at all, and stay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ratchet import durable

WRITE = "import pathlib, sys; from ratchet import durable; durable.write(pathlib.Path(sys.argv[1]), b'new')"
FOLDER = """
import pathlib, sys
from ratchet import durable
with durable.folder(pathlib.Path(sys.argv[1])) as unfinished:
    (unfinished / "file").write_bytes(b"new")
"""


def killed_before_the_rename(program: str, target: Path) -> None:
    environ = {**os.environ, "RATCHET_FAILPOINT": "durable.before_rename"}
    assert subprocess.run([sys.executable, "-c", program, str(target)], env=environ, check=False).returncode == -signal.SIGKILL


def test_a_file_has_its_content_and_mode(tmp_path: Path) -> None:
    durable.write(tmp_path / "f", b"1", mode=0o600)
    durable.write(tmp_path / "f", b"2", mode=0o600)
    assert (tmp_path / "f").read_bytes() == b"2"
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_a_file_that_cannot_be_renamed_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    with pytest.raises(OSError):
        durable.write(tmp_path / "f", b"")
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_a_file_whose_writer_is_killed_keeps_its_old_content(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"old")
    killed_before_the_rename(WRITE, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == b"old"


def test_a_folder_whose_writer_is_killed_does_not_exist(tmp_path: Path) -> None:
    killed_before_the_rename(FOLDER, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_a_folder_whose_writing_fails_is_never_visible(tmp_path: Path) -> None:
    def write() -> None:
        with durable.folder(tmp_path / "whole") as unfinished:
            (unfinished / "half").write_text("x")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_of_two_writers_of_one_folder_the_first_stays(tmp_path: Path) -> None:
    with durable.folder(tmp_path / "x") as slow, durable.folder(tmp_path / "x") as fast:
        (slow / "f").write_text("slow")
        (fast / "f").write_text("fast")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x" / "f").read_text() == "fast"


def test_everything_is_fsynced_before_the_rename_and_the_new_name_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, rename, replace = os.fsync, Path.rename, Path.replace

    def record_fsync(handle: int) -> None:
        events.append(Path(f"/proc/self/fd/{handle}").readlink().name)
        fsync(handle)

    def record_rename(path: Path, target: Path) -> Path:
        events.append(f"-> {target.name}")
        return rename(path, target)

    def record_replace(path: Path, target: Path) -> Path:
        events.append(f"-> {target.name}")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(Path, "rename", record_rename)
    monkeypatch.setattr(Path, "replace", record_replace)
    durable.make(tmp_path / "new" / "below")
    assert events == [tmp_path.name, "new"]
    with durable.folder(tmp_path / "folder") as unfinished:
        (unfinished / "file").write_bytes(b"1")
    assert events[2:] == ["file", unfinished.name, "-> folder", tmp_path.name]
    durable.write(tmp_path / "name", b"1")
    assert events[6].startswith(durable.UNFINISHED)
    assert events[7:] == ["-> name", tmp_path.name]


def test_a_removed_folder_leaves_nothing_and_a_missing_one_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    durable.remove(tmp_path / "a")
    durable.remove(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_deletes_what_was_abandoned_and_nothing_that_may_still_be_written(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / f"{durable.UNFINISHED}{name}").mkdir()
        (tmp_path / f"{durable.UNFINISHED}{name}.file").write_bytes(b"half")
    (tmp_path / "kept").mkdir()
    long_ago = (tmp_path / "kept").stat().st_mtime - durable.ABANDONED_SECONDS - 1
    for path in (*tmp_path.glob("*old*"), tmp_path / "kept"):
        os.utime(path, (long_ago, long_ago))
    durable.sweep(tmp_path)
    new = f"{durable.UNFINISHED}new"
    assert sorted(path.name for path in tmp_path.iterdir()) == [new, f"{new}.file", "kept"]
