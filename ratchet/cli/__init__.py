"""The command `ratchet`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit: 0 success, 1 failure, 2 usage. An error is one line on stderr."""
    from ratchet.cli.app import run

    sys.exit(run(sys.argv[1:]))
