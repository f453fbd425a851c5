"""Run the gateway under an audit hook, which writes to `DIR/audit.log` each path that Python opens, lists, creates, moves or removes."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from gateway.__main__ import arguments, main

FILE = "audit.log"
EVENTS = ("open", "os.", "shutil.", "glob.", "pathlib.", "tempfile.", "sqlite3.", "mmap.", "ctypes.dlopen")


def hook(log: int) -> Any:
    """An audit hook that writes to the open file `log`; os.write is no audited event."""

    def write_paths(event: str, details: tuple[Any, ...]) -> None:
        if event.startswith(EVENTS):
            for path in details[:1] if event == "open" else details[:2]:
                if isinstance(path, (str, bytes, os.PathLike)):
                    os.write(log, f"{event} {os.fsdecode(path)!r}\n".encode())

    return write_paths


if __name__ == "__main__":
    data: Path = arguments(sys.argv[1:]).data
    sys.addaudithook(hook(os.open(data / FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)))
    sys.exit(main())
