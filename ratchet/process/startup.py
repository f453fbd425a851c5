"""What the process of each part does around its work: command line, exit status, signals, the wait for the store."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from ratchet.buffer import Store, open_store
from ratchet.clock import monotonic
from ratchet.config import Config
from ratchet.errors import ConfigError, RatchetError, StoreUnavailable
from ratchet.process.supervision import WRONG_CONFIGURATION

STORE_SECONDS = 60.0
"""Seconds the store may take to answer when a part starts."""
STORE_POLL_SECONDS = 0.25
FAILED = 1


def parser(program: str, description: str) -> argparse.ArgumentParser:
    """Return a parser of the options that every part has: `--config` and `--data`."""
    shared = argparse.ArgumentParser(prog=f"python -m {program}", description=description)
    shared.add_argument("--config", type=Path, help="ratchet.yaml (absent: the built-in configuration)")
    shared.add_argument("--data", type=Path, required=True, help="the data directory")
    return shared


def log_to_stderr() -> None:
    """Write log lines of level INFO and above to stderr."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")


def exit_status(work: Callable[[], object], *expected: type[Exception]) -> int:
    """Do `work` and return the exit status: 0 done, 1 failed, 2 wrong configuration.

    A RatchetError, or one of `expected`, becomes its text on stderr; any other exception is raised.
    """
    try:
        work()
    except Exception as error:
        if not isinstance(error, (RatchetError, *expected)):
            raise
        sys.stderr.write(f"{error}\n")
        return WRONG_CONFIGURATION if isinstance(error, ConfigError) else FAILED
    return 0


def stop_event() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set, in the running loop."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def wait_for_store(config: Config, data: Path) -> Store:
    """Open the store, waiting while it is away. StoreUnavailable if that lasts STORE_SECONDS; StoreUnfit at once."""
    deadline = monotonic() + STORE_SECONDS
    while True:
        try:
            return await open_store(config.store.url, config.store, data=data)
        except StoreUnavailable:
            if monotonic() > deadline:
                raise
        await asyncio.sleep(STORE_POLL_SECONDS)
