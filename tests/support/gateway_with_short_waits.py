"""Run the gateway with shorter intervals for keep-alives and for looking at the client, which no configuration key sets."""

from __future__ import annotations

import sys

from gateway.__main__ import main
from gateway.relay import clocks

if __name__ == "__main__":
    clocks.KEEPALIVE_SECONDS /= 100
    clocks.LOOK_SECONDS /= 10
    sys.exit(main())
