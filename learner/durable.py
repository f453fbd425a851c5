"""Folders that appear whole or not at all: written aside, fsynced, renamed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ratchet import failpoints

ASIDE = ".tmp-"
"""Prefix of a folder still being written; a sweep may delete it."""


@contextmanager
def folder(target: Path) -> Iterator[Path]:
    """A fresh folder beside `target` to write into; at the end it is fsynced and becomes `target`, unless that exists already.

    If the body raises, nothing is left.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=ASIDE, dir=target.parent))
    try:
        yield aside
        for path in [*aside.rglob("*"), aside]:
            _fsync(path)
        failpoints.hit("learner.before_rename")
        _become(aside, target)
        _fsync(target.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _become(aside: Path, target: Path) -> None:
    try:
        aside.rename(target)
    except OSError:
        # Another process finished the same folder first; a non-empty folder is never replaced.
        if not target.is_dir():
            raise


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
