"""`python -m tests.chaos.disk_full FOLDER ROUNDS` in a mount namespace of its own: serve from a small tmpfs that fills up and is
freed again, ROUNDS times. Prints the figures as JSON; `test_disk_full.py` starts it and judges them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from ratchet.adapters.disk import ADAPTERS
from ratchet.buffer.spool import FOLDER, survey
from ratchet.errors import AdapterError
from tests.support.acknowledgement_log import AcknowledgementLog, loading
from tests.support.gateway_process import POLICY, Bench, bench, until
from tests.support.small_adapters import written

DISK_MIB = 48
ROUND_MIB = 32
"""What the answers of a round may take of it."""
SPOOL_MIB = 8
"""So that the first segment, a quarter of it, is soon full."""
CLIENTS = 8
NOISE = 2**16
CHUNK = 2**16


def fill(ballast: Path) -> None:
    """Takes what the disk has left."""
    with ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(CHUNK))
    with ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1))


async def one_round(made: Bench, load: AcknowledgementLog, ballast: Path, version: int) -> dict[str, Any]:
    """The disk fills, answers go to the spool until that is full too, then on unrecorded; then there is space again."""
    await load.came(CLIENTS)
    feedback = dict(load.feedback)
    fill(ballast)

    async def unrecorded() -> bool:
        return bool(load.unrecorded)

    load.unrecorded.clear()
    await until(unrecorded, "answers are served unrecorded")
    await load.came(CLIENTS)
    refused = load.feedback[503] - feedback.get(503, 0)
    torn = ""
    fill(ballast)  # a store that rewrites its log gives some space back
    try:
        written(made.data.resolve(), policy=POLICY, version=version, parent=version - 1, step=version)
    except AdapterError as error:
        torn = str(error)
    waiting = survey(made.data / FOLDER).waiting
    served = len(load.unrecorded)
    ballast.unlink()

    async def recorded() -> bool:
        return "x-ratchet-recorded" not in (await made.chat()).headers

    await until(recorded, "answers are recorded again")
    await load.kept()
    await made.publish(version)
    return {"unrecorded": served, "spooled": waiting, "feedback_503": refused, "adapter": torn}


async def scenario(disk: Path, rounds: int) -> dict[str, Any]:
    data = disk / "data"
    data.mkdir()
    async with bench(data, outbox={"max_spool_mb": SPOOL_MIB}) as made:
        async with loading(made, CLIENTS, NOISE) as load:
            found = [await one_round(made, load, disk / "ballast", version + 1) for version in range(rounds)]
        await load.kept()
        ledger = await made.store.feedback.ledger()
        return {
            "rounds": found,
            "answers": len(load.recorded),
            "missing": sorted(await load.missing()),
            "stored": await made.store.interactions.count(),
            "errors": load.errors,
            "feedback": dict(load.feedback),
            "impatient": load.impatient,
            "balances": ledger.balances,
            "folders": sorted(path.name for path in (data / ADAPTERS / POLICY).iterdir()),
        }


def main() -> None:
    disk, rounds = Path(sys.argv[1]) / "disk", int(sys.argv[2])
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB + rounds * ROUND_MIB}m", "tmpfs", str(disk)], check=True)
    sys.stdout.write(json.dumps(asyncio.run(scenario(disk, rounds))))


if __name__ == "__main__":
    main()
