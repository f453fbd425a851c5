"""Ends an engine's whole process group once its supervisor lets go of it, however the supervisor ended.

    python -I -S guard.py GROUP        stdin is the leash: at its end, the group is killed

The kernel kills the engine's first process with its parent (`ratchet.process.spawn`), but nothing was found in vLLM 0.32's
source that makes its EngineCore notice the death of its own parent; left over, it would keep the cores and the memory.
Imports little: one runs beside each engine.
"""

import contextlib
import os
import signal
import sys


def main(group: int) -> None:
    while os.read(0, 1024):
        pass
    # Gone already is what was wanted.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    main(int(sys.argv[1]))
