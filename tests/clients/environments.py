"""Runs a suite with a client's own interpreter, as a stranger would: it knows a URL and a key and nothing of ours."""

from __future__ import annotations

import asyncio
import os
from asyncio.subprocess import PIPE, STDOUT
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from tests.support.gateway_process import POLICY, Bench

ROOT = Path(__file__).parents[2]
SUITES = Path(__file__).with_name("suites")
SECONDS = 240.0
HANDED_ON = ("PATH", "HOME", "LANG", "TMPDIR", "OMP_NUM_THREADS")


@dataclass
class Outcome:
    """What a suite's run said of its cases."""

    passed: int
    skipped: set[str]
    said: str


def interpreter(client: str) -> Path:
    """The Python of `.venv-clients-CLIENT`, which requirements/client.sh makes."""
    return ROOT / f".venv-clients-{client}" / "bin" / "python"


def surroundings(url: str, key: str, **more: str) -> dict[str, str]:
    """The environment variables that OpenAI's own clients read, and nothing else of this process's but what it takes to run."""
    kept = {name: os.environ[name] for name in HANDED_ON if name in os.environ}
    return {**kept, "OPENAI_BASE_URL": url + "/v1", "OPENAI_API_KEY": key, "PYTHONUNBUFFERED": "1", **more}


async def run(argv: list[str], folder: Path, env: dict[str, str], seconds: float = SECONDS) -> tuple[int, str]:
    """A program's exit status and what it printed. It is killed after `seconds`."""
    process = await asyncio.create_subprocess_exec(*argv, stdout=PIPE, stderr=STDOUT, cwd=folder, env=env)
    try:
        out, _ = await asyncio.wait_for(process.communicate(), seconds)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, out.decode(errors="replace")


async def suite(client: str, name: str, folder: Path, env: dict[str, str], *flags: str) -> Outcome:
    """Runs suites/NAME with the client's pytest; AssertionError, with all it said, unless every case passed or was skipped."""
    report = folder / f"{name}.xml"
    argv = [str(interpreter(client)), "-P", "-m", "pytest", "-c", str(SUITES / "pytest.ini"), "--rootdir", str(SUITES)]
    argv += ["--confcutdir", str(SUITES), "--junitxml", str(report), *flags, str(SUITES / name)]
    status, said = await run(argv, folder, env)
    assert status == 0, said
    cases = list(ElementTree.parse(report).iter("testcase"))
    skipped = {case.get("name", "") for case in cases if case.find("skipped") is not None}
    return Outcome(len(cases) - len(skipped), skipped, said)


def beside(made: Bench, key: str = "client", **more: str) -> dict[str, str]:
    """The surroundings of a suite that talks to a test gateway; with the fake's own URL, for faults."""
    fake = next(iter(made.fakes.values()))
    keys = {f"KEY_{name.upper()}": f"rk-{name}" for name in ("other", "infer", "feedback", "operator")}
    return surroundings(made.url, f"rk-{key}", MODEL=POLICY, FAKE_URL=fake.url, **keys, **more)
