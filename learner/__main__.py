"""`python -m learner --config FILE --data DIR`: update, gate and publish policies."""

from __future__ import annotations

import asyncio
import sys

from ratchet.config import load
from ratchet.process import die_with_parent, startup


def main() -> int:
    """Run until SIGTERM or SIGINT; return the exit status."""
    die_with_parent()
    options = startup.parser("learner", "Update, gate and publish policies.").parse_args()
    startup.log_to_stderr()

    def work() -> None:
        config = load(options.config)
        from learner.process import serve  # imports torch, which takes seconds: a wrong configuration is reported before

        asyncio.run(serve(config, options.data))

    return startup.exit_status(work)


if __name__ == "__main__":
    sys.exit(main())
