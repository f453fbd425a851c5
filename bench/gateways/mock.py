"""The C programs of `bench/mock`: compile them, and run them as child processes."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import msgspec

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCES = ROOT / "bench" / "mock"
BUILT = ROOT / "build" / "bench"
MODEL = "smollm2"
CHAT = "/v1/chat/completions"
FLAGS = ("-O2", "-Wall", "-Wextra")


def compiled(name: str) -> Path:
    """Build `bench/mock/NAME.c`, if it changed, and return the program. SystemExit if this machine has no C compiler."""
    source, program = SOURCES / f"{name}.c", BUILT / name
    if program.exists() and program.stat().st_mtime > source.stat().st_mtime:
        return program
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise SystemExit("bench: no C compiler (cc or gcc), which the mock engine and the load generator need")
    BUILT.mkdir(parents=True, exist_ok=True)
    subprocess.run([compiler, *FLAGS, "-o", str(program), str(source)], check=True)
    return program


@dataclass
class Mock:
    """A running mock engine."""

    url: str
    process: Process

    def step(self, microseconds: int) -> None:
        """Set the time between two tokens of a stream: 0 is none; -1 sends no token after the first chunk."""
        httpx.post(f"{self.url}/mock/step/{microseconds}").raise_for_status()

    def running(self) -> int:
        """The number of streams under way."""
        return int(httpx.get(f"{self.url}/mock/running").text)

    def stop(self) -> None:
        """End it at once, with the connections it has."""
        if self.process.returncode is None:
            self.process.kill()


@asynccontextmanager
async def mocked(step: int = 0) -> AsyncIterator[Mock]:
    """Run a mock engine on a free port for as long as the context lasts."""
    process = await asyncio.create_subprocess_exec(compiled("upstream"), "0", MODEL, str(step), stdout=PIPE)
    assert process.stdout is not None
    engine = Mock((await process.stdout.readline()).decode().strip(), process)
    try:
        yield engine
    finally:
        engine.stop()
        await process.wait()


class Result(msgspec.Struct):
    """What the load generator reports. `ttft_us` and `total_us`: microseconds to the first and last byte of each complete answer."""

    sent: int
    ok: int
    seconds: float
    events: int
    bytes: int
    leaks: int
    """Pieces that showed the client token ids it had not asked for."""
    last_id: str
    errors: dict[str, int]
    ttft_us: list[float]
    total_us: list[float]


async def load(url: str, body: Path, headers: Sequence[str] = (), **options: float) -> Result:
    """Run the load generator once; `options` are its one-letter flags (`c`, `r`, `d`, `n`, `w`)."""
    place = urlsplit(url)
    flags = [word for key, value in options.items() for word in (f"-{key}", f"{value:g}")]
    flags += [word for line in headers for word in ("-h", line)]
    argv = [str(compiled("load")), str(place.hostname), str(place.port), CHAT, str(body), *flags]
    process = await asyncio.create_subprocess_exec(*argv, stdout=PIPE)
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return msgspec.json.decode(output, type=Result)


def request_body(folder: Path, *, tokens: int, stream: bool = True, prompt: int = 1000) -> Path:
    """Write a request body into `folder`: a prompt of `prompt` characters, an answer of `tokens` tokens."""
    text = ("The moon rises over the quiet harbour, and we wait. " * (prompt // 52 + 1))[:prompt]
    tree = {"model": MODEL, "messages": [{"role": "user", "content": text}], "max_tokens": tokens, "stream": stream}
    path = folder / f"request-{tokens}-{prompt}-{'stream' if stream else 'whole'}.json"
    path.write_bytes(msgspec.json.encode(tree))
    return path
