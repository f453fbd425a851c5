"""`python -m engines --config FILE --data DIR --name NAME`: launches and supervises one engine of the configuration."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from engines.supervise import Supervisor
from ratchet.buffer import Store, open_store
from ratchet.clock import monotonic
from ratchet.config import Config, EngineConfig, load
from ratchet.errors import ConfigError, RatchetError, StoreUnavailable
from ratchet.process import die_with_parent

STORE_SECONDS = 60.0
"""How long the store may take to answer at the start."""
STORE_POLL_SECONDS = 0.5


def main() -> int:
    """Exit status: 0 told to stop, 1 failed, 2 wrong configuration."""
    die_with_parent()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    options = _arguments(sys.argv[1:])
    try:
        config = load(options.config)
        asyncio.run(_run(config, _chosen(config, options.name), options.data))
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except RatchetError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m engines", description="Launches and supervises one engine.")
    parser.add_argument("--config", type=Path, help="ratchet.yaml (absent: the built-in configuration)")
    parser.add_argument("--data", type=Path, required=True, help="the data directory")
    parser.add_argument("--name", help="the engine's name (absent: the only one to launch)")
    return parser.parse_args(argv)


def _chosen(config: Config, name: str | None) -> EngineConfig:
    launched = [e for e in config.engines if e.launch is not None and name in (None, e.name)]
    if len(launched) != 1:
        raise ConfigError(f"no engine named {name!r} to launch" if name else "name one engine to launch with --name")
    return launched[0]


async def _run(config: Config, engine: EngineConfig, data: Path) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    store = await _opened(config, data)
    try:
        await Supervisor(config, engine, data, store).run(stop)
    finally:
        await store.close()


async def _opened(config: Config, data: Path) -> Store:
    deadline = monotonic() + STORE_SECONDS
    while True:
        try:
            return await open_store(config.store.url, config.store, data=data)
        except StoreUnavailable:
            if monotonic() > deadline:
                raise
        await asyncio.sleep(STORE_POLL_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
