"""The gateway, with the waits that are no configuration a hundredth as long."""

from __future__ import annotations

import sys

from gateway import relay
from gateway.__main__ import main

if __name__ == "__main__":
    relay.KEEPALIVE_SECONDS /= 100
    relay.TEND_EVERY /= 10
    sys.exit(main())
