"""`python -m learner --config FILE --data DIR`: exit 0 when told to stop, 1 when it cannot go on, 2 for a wrong configuration."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from pathlib import Path

from ratchet import process
from ratchet.config import load
from ratchet.errors import ConfigError, RatchetError


def main() -> int:
    process.die_with_parent()
    arguments = argparse.ArgumentParser(prog="python -m learner", description="The learner: updates, gates and publishes policies.")
    arguments.add_argument("--config", type=Path, help="the YAML; none: the built-in configuration")
    arguments.add_argument("--data", type=Path, required=True, help="the data directory")
    options = arguments.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        config = load(options.config)
        from learner.process import serve  # torch takes seconds to import: a wrong configuration is told before

        asyncio.run(serve(config, options.data))
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except RatchetError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
