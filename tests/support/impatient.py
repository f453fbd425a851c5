"""The gateway, with the waits that are no configuration a hundredth as long."""

from __future__ import annotations

import sys

from gateway.__main__ import main
from gateway.relay import relay

if __name__ == "__main__":
    relay.KEEPALIVE_SECONDS /= 100
    relay.TEND_EVERY /= 10
    sys.exit(main())
