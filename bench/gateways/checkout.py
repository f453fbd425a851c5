"""Other commits' gateways: a temporary checkout of a commit, and its gateway as a target."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from bench.gateways.mock import ROOT
from bench.gateways.target import Target

HOST = Path(__file__).with_name("host.py")
START_SECONDS = 120.0


def git(*words: str, cwd: Path = ROOT) -> str:
    """The output of a git command. RuntimeError with its message if it fails."""
    done = subprocess.run(["git", *words], cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"git {words[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


def name_of(tree: Path) -> str:
    """The checkout's commit in short, with `+` where tracked files differ from it."""
    changed = git("status", "--porcelain", "--untracked-files=no", cwd=tree)
    return git("rev-parse", "--short", "HEAD", cwd=tree) + ("+" if changed else "")


@contextmanager
def checkout(commit: str) -> Iterator[Path]:
    """A temporary git worktree of `commit`, removed when the context ends. RuntimeError: there is no such commit."""
    with tempfile.TemporaryDirectory(prefix="ratchet-commit-") as folder:
        tree = Path(folder) / "tree"
        git("worktree", "add", "--detach", str(tree), commit)
        try:
            yield tree
        finally:
            git("worktree", "remove", "--force", str(tree))


@asynccontextmanager
async def hosted(tree: Path, name: str, mock: str, folder: Path, core: Sequence[str] = ()) -> AsyncIterator[Target]:
    """Run the gateway of the checkout `tree` in front of the mock. RuntimeError: it did not start."""
    env = {**os.environ, "PYTHONPATH": str(tree)}
    argv = [sys.executable, "-P", str(HOST), mock, str(folder), *core]
    process = await asyncio.create_subprocess_exec(*argv, cwd=tree, env=env, stdin=PIPE, stdout=PIPE)
    assert process.stdin is not None and process.stdout is not None
    try:
        async with asyncio.timeout(START_SECONDS):
            line = await process.stdout.readline()
        if not line:
            raise RuntimeError(f"the gateway of {name} did not start")
        yield Target(**{**json.loads(line), "name": name})
    finally:
        process.stdin.close()
        await process.wait()
