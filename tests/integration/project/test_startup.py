"""What the process of each part does around its work."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from ratchet.buffer import EmbeddedServer
from ratchet.config import Config
from ratchet.errors import ConfigError, EngineBroken, StoreUnavailable
from ratchet.process import free_port, startup
from ratchet.process.locks import locked

HOLD_LOCK = """
import pathlib, sys
from ratchet.process.locks import locked
with locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    input()
"""


@pytest.mark.parametrize(
    ("error", "status"), [(None, 0), (EngineBroken("it broke"), 1), (ConfigError("x: wrong\ny: wrong"), 2), (FileExistsError("taken"), 1)]
)
def test_an_error_becomes_its_text_and_a_status(error: Exception | None, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        if error is not None:
            raise error

    assert startup.exit_status(work, OSError) == status
    assert capsys.readouterr().err == (f"{error}\n" if error else "")


def test_an_error_that_nobody_expects_is_raised() -> None:
    def work() -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        startup.exit_status(work)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_sets_the_event(number: signal.Signals) -> None:
    stop = startup.stop_event()
    try:
        os.kill(os.getpid(), number)
        await asyncio.wait_for(stop.wait(), 10)
    finally:
        for handled in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().remove_signal_handler(handled)


async def test_a_store_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    config = Config()
    waiting = asyncio.create_task(startup.wait_for_store(config, tmp_path))
    await asyncio.sleep(0)
    server = await EmbeddedServer.start(tmp_path, config.store)
    store = await asyncio.wait_for(waiting, 30)
    await store.ping()
    await store.close()
    await server.stop()


async def test_a_store_that_never_comes_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "STORE_SECONDS", 0.0)
    config = Config.model_validate({"store": {"url": f"redis://127.0.0.1:{free_port()}/0"}})
    with pytest.raises(StoreUnavailable):
        await asyncio.wait_for(startup.wait_for_store(config, tmp_path), 30)


def test_every_part_has_the_options_of_configuration_and_data(capsys: pytest.CaptureFixture[str]) -> None:
    parser = startup.parser("part", "Do it.")
    found = parser.parse_args(["--config", "a.yaml", "--data", "d"])
    assert (found.config, found.data) == (Path("a.yaml"), Path("d"))
    with pytest.raises(SystemExit):
        parser.parse_args([])
    assert "python -m part" in capsys.readouterr().err


async def test_a_lock_that_another_process_holds_is_waited_for_or_an_error(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    pipe = asyncio.subprocess.PIPE
    holder = await asyncio.create_subprocess_exec(sys.executable, "-c", HOLD_LOCK, str(path), stdin=pipe, stdout=pipe)
    assert holder.stdout is not None
    assert await asyncio.wait_for(holder.stdout.readline(), 30) == b"held\n"
    with pytest.raises(ConfigError, match="busy"), locked(path, busy=ConfigError("busy")):
        pass

    def wait() -> bool:
        with locked(path):
            return True

    waiting = asyncio.create_task(asyncio.to_thread(wait))
    holder.kill()
    assert await asyncio.wait_for(waiting, 30)
    await holder.wait()
    with locked(path, busy=ConfigError("busy")):
        pass
