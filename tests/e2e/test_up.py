"""`ratchet up` with no configuration at all, on the real engine: used by a stranger, killed, started again and stopped."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.ratchet_up import Up, ratchet, running

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(600)]
STRANGER = Path(__file__).with_name("stranger.py")
GONE_SECONDS = 15.0
"""Within which nothing is left of a machine that was killed."""


async def stranger(up: Up, folder: Path) -> dict[str, Any]:
    pipe = asyncio.subprocess.PIPE
    argv = [sys.executable, "-I", str(STRANGER), str(folder / "ready.json"), "assistant"]
    child = await asyncio.create_subprocess_exec(*argv, stdout=pipe, stderr=pipe, cwd=folder)
    out, err = await asyncio.wait_for(child.communicate(), 300)
    assert child.returncode == 0, err.decode() + up.log.read_text()
    found: dict[str, Any] = json.loads(out)
    return found


def admin(up: Up, path: str) -> Any:
    return httpx.get(up.ready["admin"] + path, headers={"authorization": f"Bearer {up.ready['keys']['operator']}"}).json()


async def test_what_a_stranger_was_told_outlives_kill_nine_and_the_machine_then_stops_cleanly(tmp_path: Path) -> None:
    async with running(tmp_path) as up:
        seen = await stranger(up, tmp_path)
        assert {"smollm2", "assistant", "assistant@0"} <= set(seen["models"])
        assert len(seen["ids"]) == 1
        assert seen["chunks"] > 2
        assert seen["ended"] in ("stop", "length")
        assert seen["leaked"] == []
        assert seen["feedback"]["object"] == "feedback"
        assert seen["stored"] == {"id": seen["ids"][0], "said": seen["said"]}
        assert seen["listed"] == seen["ids"]
        ledger = admin(up, "/admin/ledger")
        assert ledger["received"] == 1 == ledger["used"] + ledger["pending"] + sum(ledger["rejected"].values()) + ledger["expired"]
        status, out, _ = await ratchet("policies", "--data", str(up.data))
        assert (status, "assistant@0" in out) == (0, True)
        assert len(up.tree()) >= 5
        assert await asyncio.wait_for(up.end(signal.SIGKILL), GONE_SECONDS) == -signal.SIGKILL
    async with running(tmp_path) as up:
        headers = {"authorization": f"Bearer {up.ready['keys']['client']}"}
        kept = httpx.get(f"{up.ready['gateway']}/v1/chat/completions/{seen['ids'][0]}", headers=headers).json()
        assert kept["choices"][0]["message"]["content"] == seen["said"]
        assert admin(up, "/admin/ledger")["received"] == 1
        assert await up.end(signal.SIGINT) == 0
