"""Becomes another program that is killed when this process's parent dies. Run by `ratchet.process.spawn`, as a plain file.

    python -I -S _exec.py PARENT_PID PROGRAM ARGUMENT...

A program of its own, because code between fork and exec (`preexec_fn`) may deadlock where the parent has threads.
Imports little, as it runs before each child.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
NOT_FOUND = 127


def set_death_signal(number: int) -> None:
    """Asks the kernel to send this process `number` when its parent ends. The setting survives exec. Linux only, else nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, number)


def main(argv: list[str]) -> int:
    parent, program = int(argv[0]), argv[1:]
    set_death_signal(signal.SIGKILL)
    # The parent may have died before the call above: then no signal will come.
    if os.getppid() != parent:
        return 1
    try:
        os.execvp(program[0], program)
    except OSError as error:
        sys.stderr.write(f"{program[0]}: {error.strerror}\n")
        return NOT_FOUND


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
