"""One environment for each package that is measured or measures: `.venv-bench-NAME`, from `requirements/peers/NAME.lock`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench.gateways.mock import ROOT

ERROR_TAIL = 400


class Missing(Exception):
    """It cannot be installed on this machine; the message says why, in one line."""


def environment(name: str) -> Path:
    """The folder of its programs, installed if need be. Missing."""
    place, lock = ROOT / f".venv-bench-{name}", ROOT / "requirements" / "peers" / f"{name}.lock"
    stamp = place / ".ratchet-setup"
    if stamp.exists() and stamp.stat().st_mtime > lock.stat().st_mtime:
        return place / "bin"
    print(f"bench: installing {lock.name} into {place.name}", flush=True)
    _run([sys.executable, "-m", "venv", str(place)])
    python, flags = str(place / "bin" / "python"), ["--quiet", "--no-deps", "--require-hashes", "-r", str(lock)]
    uv = Path(sys.executable).with_name("uv")
    try:  # as in install.sh: uv is several times as fast; pip is for machines where only pip is configured
        _run([str(uv), "pip", "install", "--python", python, *flags])
    except (Missing, OSError):
        _run([python, "-m", "pip", "install", *flags])
    stamp.touch()
    return place / "bin"


def version(name: str, package: str) -> str:
    """The version of `package` that its lock pins."""
    lock = (ROOT / "requirements" / "peers" / f"{name}.lock").read_text(encoding="utf-8")
    return next((line.split("==")[1].split()[0] for line in lock.splitlines() if line.startswith(package + "==")), "?")


def _run(argv: list[str]) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Missing(" ".join(done.stderr.split())[-ERROR_TAIL:] or f"{argv[0]} ended with {done.returncode}")
