"""Collected only by `make test-clients`: the clients' environments are not part of `make setup`."""

import os

collect_ignore_glob = [] if os.environ.get("RATCHET_CLIENTS") == "1" else ["test_*.py"]
