"""Run Ratchet's gateway from the checkout on PYTHONPATH, and print where it listens; it stops when standard input is closed.

    PYTHONPATH=TREE python -P bench/gateways/host.py MOCK_URL FOLDER [WORD...]

Everything comes from TREE: the gateway, its store, and the benchmark's code that starts them. WORDs go before the command line.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path

from bench.gateways.ours import ours


async def main(mock: str, folder: str, *core: str) -> None:
    async with ours(mock, Path(folder), core=core) as target:
        print(json.dumps(asdict(target)), flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    Path(sys.argv[2]).mkdir(parents=True)
    asyncio.run(main(*sys.argv[1:]))
