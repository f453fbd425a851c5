"""The command `ratchet`."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command line and exits: 0 success, 1 failure, 2 usage. Errors are one line on stderr."""
    from ratchet.cli.app import run

    sys.exit(run(sys.argv[1:]))
