"""`python -m engines --config FILE --data DIR --name NAME`: launch one engine of the configuration and supervise it."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from engines.supervision.supervisor import Supervisor
from ratchet.config import Config, EngineConfig, load
from ratchet.errors import ConfigError
from ratchet.process import die_with_parent, startup


def main() -> int:
    """Run until SIGTERM or SIGINT; return the exit status."""
    die_with_parent()
    startup.log_to_stderr()
    options = _arguments(sys.argv[1:])

    def work() -> None:
        config = load(options.config)
        asyncio.run(_run(config, _chosen(config, options.name), options.data))

    return startup.exit_status(work)


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = startup.parser("engines", "Launch and supervise one engine.")
    parser.add_argument("--name", help="the engine's name (absent: the only one to launch)")
    return parser.parse_args(argv)


def _chosen(config: Config, name: str | None) -> EngineConfig:
    launched = [e for e in config.engines if e.launch is not None and name in (None, e.name)]
    if len(launched) != 1:
        raise ConfigError(f"no engine named {name!r} to launch" if name else "name one engine to launch with --name")
    return launched[0]


async def _run(config: Config, engine: EngineConfig, data: Path) -> None:
    stop = startup.stop_event()
    store = await startup.wait_for_store(config, data)
    try:
        await Supervisor(config, engine, data, store).run(stop)
    finally:
        await store.close()


if __name__ == "__main__":
    sys.exit(main())
