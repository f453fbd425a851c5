"""Kill an engine's whole process group when its supervisor ends, however that happens.

    python -I -S guard.py GROUP        the group is killed when stdin ends, which the supervisor holds open

The kernel kills the engine's first process with its parent (`ratchet.process.spawn`), but nothing in vLLM 0.32's source makes
its EngineCore notice the death of its own parent; it would run on and keep the cores and the memory. This program imports
little, since one runs beside each engine.
"""

import contextlib
import os
import signal
import sys


def main(group: int) -> None:
    while os.read(0, 1024):
        pass
    # The group may have ended already.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    main(int(sys.argv[1]))
