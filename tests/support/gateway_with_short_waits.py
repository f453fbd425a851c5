"""The gateway, with the waits that are no configuration a hundredth as long."""

from __future__ import annotations

import sys

from gateway.__main__ import main
from gateway.relay import clocks

if __name__ == "__main__":
    clocks.KEEPALIVE_SECONDS /= 100
    clocks.LOOK_SECONDS /= 10
    sys.exit(main())
