"""Start the gateway without one optimisation: `python -m bench.without.run NAME -- ARGUMENTS` (`control`: with all of them)."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from bench.without import OPTIMISATIONS
from gateway import __main__ as program

CONTROL = "control"
"""Removes nothing: what it costs more than the gateway itself is noise."""


def main(argv: Sequence[str]) -> int:
    name, arguments = argv[0], argv[argv.index("--") + 1 :]
    if name not in (CONTROL, *OPTIMISATIONS):
        sys.stderr.write(f"there is no optimisation {name!r}; there are {', '.join(OPTIMISATIONS)}\n")
        return 2
    if name != CONTROL:
        OPTIMISATIONS[name].remove()
    sys.argv = ["gateway", *arguments]
    return program.main()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
