"""Files and folders that survive a power cut whole or not at all: written under another name, fsynced, then renamed."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ratchet import clock, failpoints

UNFINISHED = ".tmp-"
"""Prefix of a file or folder that is still being written."""
ABANDONED_SECONDS = 86_400.0
"""Age after which an unfinished file or folder belongs to a process that died: no write takes a day."""


def write(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Write `content` to `path`, replacing what is there. On disk when it returns. OSError if it cannot be written."""
    unfinished = path.with_name(_unfinished_name())
    try:
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        failpoints.hit("durable.before_rename")
        unfinished.replace(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
    sync(path.parent)


@contextmanager
def folder(target: Path) -> Iterator[Path]:
    """Give an empty folder to write into; it becomes `target` when the block ends, unless `target` exists by then.

    On disk when the block has ended. If the block raises, nothing is left.
    """
    unfinished = target.with_name(_unfinished_name())
    unfinished.mkdir(mode=0o755)
    try:
        yield unfinished
        for path in [*unfinished.rglob("*"), unfinished]:
            sync(path)
        failpoints.hit("durable.before_rename")
        _rename_folder(unfinished, target)
        sync(target.parent)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def make(target: Path) -> None:
    """Make the folder `target` and its parents, each new directory entry on disk."""
    missing = [place for place in (target, *target.parents) if not place.exists()]
    target.mkdir(parents=True, exist_ok=True)
    for place in reversed(missing):
        sync(place.parent)


def remove(target: Path) -> None:
    """Delete a folder; no reader sees half of it. Nothing happens if it does not exist."""
    unfinished = target.with_name(_unfinished_name())
    with contextlib.suppress(FileNotFoundError):
        target.rename(unfinished)
    shutil.rmtree(unfinished, ignore_errors=True)


def sweep(parent: Path) -> None:
    """Delete what writers that died left unfinished in `parent`."""
    for path in parent.glob(UNFINISHED + "*"):
        with contextlib.suppress(FileNotFoundError):
            if clock.wall() - path.lstat().st_mtime < ABANDONED_SECONDS:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def sync(path: Path) -> None:
    """Put a file's content, or a folder's entries, on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unfinished_name() -> str:
    return UNFINISHED + secrets.token_hex(8)


def _rename_folder(unfinished: Path, target: Path) -> None:
    try:
        unfinished.rename(target)
    except OSError:
        # Another process finished the same folder first. The system never replaces a folder that holds anything.
        if not target.is_dir():
            raise
