"""`python -m gateway --config FILE --data DIR`: prints `{"gateway": url, "admin": url}` once both planes listen."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import uvloop

from gateway.server.serve import serve
from gateway.telemetry import logs
from gateway.workers.worker import run_worker
from ratchet.config import load
from ratchet.process import die_with_parent, startup


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = startup.parser("gateway", "Serve the data plane and the control plane.")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)  # one that the first worker started
    parser.add_argument("--allow-first-keys", action="store_true", help="start with no key in the store; whoever started it puts one")
    return parser.parse_args(argv)


def main() -> int:
    """Serve until SIGTERM or SIGINT; return the exit status."""
    die_with_parent()
    options = arguments(sys.argv[1:])

    def serve_both_planes() -> None:
        config = load(options.config)
        logs.setup(config.gateway.telemetry)
        uvloop.run(serve(config, options.data, first_keys=options.allow_first_keys))

    def serve_data_plane() -> None:
        uvloop.run(run_worker(options.data))

    return startup.exit_status(serve_data_plane if options.worker else serve_both_planes, OSError, EOFError)


if __name__ == "__main__":
    sys.exit(main())
