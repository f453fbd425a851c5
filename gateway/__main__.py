"""`python -m gateway --config FILE --data DIR`: prints `{"gateway": url, "admin": url}` once both planes listen."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from gateway.server.serve import serve
from gateway.telemetry import logs
from gateway.workers.other import work
from ratchet.config import load
from ratchet.errors import ConfigError, RatchetError
from ratchet.process import die_with_parent


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m gateway", description="Serve the data plane and the control plane.")
    parser.add_argument("--config", type=Path, help="ratchet.yaml (default: built in)")
    parser.add_argument("--data", type=Path, required=True, help="the data directory")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)  # one that the first started
    parser.add_argument("--allow-first-keys", action="store_true", help="start with no key in the store; whoever started it puts one")
    return parser.parse_args(argv)


def main() -> int:
    die_with_parent()
    options = arguments(sys.argv[1:])
    try:
        if options.worker:
            uvloop.run(work(options.data))
            return 0
        config = load(options.config)
        logs.setup(config.gateway.telemetry)
        uvloop.run(serve(config, options.data, first_keys=options.allow_first_keys))
    except (RatchetError, OSError, EOFError) as error:
        sys.stderr.write(f"gateway: {error}\n")
        return 2 if isinstance(error, ConfigError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
