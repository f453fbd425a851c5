"""A part of the machine: a child process that is started, restarted when it ends, and stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from ratchet.config import Config
from ratchet.config.load import PREFIX
from ratchet.errors import ConfigError, RatchetError
from ratchet.process import kill_tree, spawn
from ratchet.process.supervision import CANNOT_START, WRONG_CONFIGURATION, keep_running

ADD_PATH = "import runpy, sys; sys.path.append(sys.argv.pop(1)); runpy.run_module('learner', run_name='__main__', alter_sys=True)"


def command(module: str, config: Path | None, data: Path, *more: str, rewards: Path | None = None) -> list[str]:
    """Return the command line of one part.

    `-P` keeps a folder named `gateway` or `engines` in the working directory from being imported instead of ours. `rewards` is
    the folder where the learner finds reward functions; it comes last on its path, so that it can shadow no package.
    """
    run = ["-m", module] if rewards is None else ["-c", ADD_PATH, str(rewards)]
    return [sys.executable, "-P", *run, *(["--config", str(config)] if config else []), "--data", str(data), *more]


def environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return what children inherit: all but the overrides of the configuration, which the resolved YAML already contains."""
    sections = tuple(f"{PREFIX}{name.upper()}__" for name in Config.model_fields)
    inherited = os.environ if environ is None else environ
    return {k: v for k, v in inherited.items() if not k.startswith(sections)} | {"PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"}


class Part:
    """One child process, kept running until it is stopped.

    `starting` is held while a child is being started, so that the search for orphans does not take it for one. `died` is
    called with the exit status each time the child has ended and is to be restarted.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        log: Path,
        env: Mapping[str, str],
        starting: asyncio.Lock,
        died: Callable[[Part, int], Awaitable[None]],
    ) -> None:
        self.name = name
        self.log = log
        self.restarts = 0
        self.was_ready = False
        self._argv = argv
        self._env = env
        self._starting = starting
        self._died = died
        self._process: Process | None = None

    @property
    def pid(self) -> int | None:
        """The pid of the running child; None if there is none."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def keep(self) -> None:
        """Run the child until cancelled.

        ConfigError if it reports a wrong configuration, which no restart changes; RatchetError if it ends each time it starts
        and was never ready.
        """
        status = await keep_running(
            self._life, was_ready=lambda: self.was_ready, is_final=lambda status: status == WRONG_CONFIGURATION, ended=self._ended
        )
        if status == WRONG_CONFIGURATION:
            raise ConfigError(f"{self.name}: {last_line(self.log)}")
        raise RatchetError(f"{self.name} ends with status {status} each time it starts; {self.log} ends: {last_line(self.log)}")

    async def stop(self, grace: float) -> None:
        """End the child and its descendants within about `grace` seconds. `keep` must have been cancelled before."""
        if self._process is not None and self.pid is not None:
            await kill_tree(self._process.pid, grace)
            await self._process.wait()

    async def _ended(self, status: int) -> None:
        self.restarts += 1
        await self._died(self, status)

    async def _life(self) -> int:
        """Start the child and return its exit status, or CANNOT_START where the machine lacks disk or processes for it now."""
        try:
            async with self._starting:
                self._process = await spawn(self._argv, env=self._env, log=self.log, name=self.name)
        except OSError:
            return CANNOT_START
        return await self._process.wait()


def restart_message(name: str, status: int, restarts: int, log: Path) -> str:
    """Return one line about a part that ended with `status` and is started for the `restarts`th time."""
    if status == CANNOT_START:
        why = "cannot be started now"
    elif status < 0:
        why = f"was ended by signal {-status} ({signal.strsignal(-status)})"
    else:
        why = f"ended with status {status} ({last_line(log)})"
    return f"{name} {why}; restart {restarts}, log {log}"


def last_line(log: Path) -> str:
    """Return the last line of a log that is not blank."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "(nothing)"
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "(nothing)")
