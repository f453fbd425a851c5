"""What every test is held to: unit tests first, no process left behind, no error swallowed by the event loop."""

from __future__ import annotations

import gc
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, settings

from ratchet.clock import monotonic
from tests.support import fault_figures

ORDER = ("unit", "bench", "contracts", "api", "security", "chaos", "e2e", "clients")
SLOW = ("chaos", "e2e", "clients")
"""Folders that `make test-fast` leaves out: whole machines, started and killed."""
OWN_GATEWAY = ("api", "security")
"""Folders of which it leaves out each test with a data directory of its own: that starts a gateway on it. The others share one."""
FAULTS = {"tests/chaos", "tests/security"}
"""What `make test-faults` runs; only the whole of it is worth a page."""
BEGAN = monotonic()
LEAVE_SECONDS = 5.0
HELPERS = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")
"""Processes that the standard library keeps for the interpreter's whole life."""
CHILDREN = "children"
"""The kernel's list of what a thread started, where it is built with it."""
LISTED = Path(f"/proc/self/task/{os.getpid()}/{CHILDREN}").exists()


def pytest_configure() -> None:
    """A shell's background job ignores SIGINT and hands that down; children of these tests are to heed it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # A busy machine is no fault of a test.
    settings.register_profile("ratchet", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("ratchet")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Cheap tests first; those on the real engine last in their folder, so that it is started late and only once."""
    root = Path(__file__).parent
    for item in items:
        folder = item.path.relative_to(root).parts[0]
        if folder in SLOW or (folder in OWN_GATEWAY and "tmp_path" in getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)

    def rank(item: pytest.Item) -> tuple[int, bool]:
        parts = item.path.relative_to(root).parts
        return (ORDER.index(parts[0]) if parts[0] in ORDER else 0, item.get_closest_marker("real") is not None)

    items.sort(key=rank)


def pytest_collection_finish() -> None:
    """What was imported until now stays; the garbage collector need not look at it again and again."""
    gc.freeze()


@pytest.fixture(autouse=True)
def no_process_is_left_behind() -> Iterator[None]:
    """Fails a test that leaves a child process. What wider fixtures started before it is theirs."""
    before = _children()
    yield
    left = [child for child in _processes(_children() - before) if not _helper(child)]
    _, alive = psutil.wait_procs(left, timeout=LEAVE_SECONDS) if left else ([], [])
    said = [_said(child) for child in alive]
    for child in alive:
        child.kill()
    assert not said, f"processes left behind: {said}"


@pytest.fixture(autouse=True)
def no_error_is_swallowed_by_the_loop() -> Iterator[None]:
    """Fails a test whose event loop logged an error: an exception nobody fetched, a task destroyed while it ran."""
    errors: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: errors.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("asyncio")
    logger.addHandler(handler)
    yield
    logger.removeHandler(handler)
    assert not errors, f"the event loop complained: {errors}"


def _children() -> set[int]:
    """The ids of all descendants. psutil looks through every process of the machine for them: 2 ms a time, twice a test."""
    if not LISTED:
        return {child.pid for child in psutil.Process().children(recursive=True)}
    found: set[int] = set()
    look = [os.getpid()]
    while look:
        started = _started(look.pop()) - found
        found |= started
        look += started
    return found


def _started(parent: int) -> set[int]:
    """The ids of a process's own children; none if it is gone by now."""
    found: set[int] = set()
    tasks = Path(f"/proc/{parent}/task")
    with suppress(OSError):
        for thread in tasks.iterdir():
            with suppress(OSError):
                found.update(map(int, (thread / CHILDREN).read_bytes().split()))
    return found


def _processes(ids: set[int]) -> Iterator[psutil.Process]:
    for pid in ids:
        with suppress(psutil.NoSuchProcess):
            yield psutil.Process(pid)


def _helper(child: psutil.Process) -> bool:
    return any(name in _said(child) for name in HELPERS)


def _said(child: psutil.Process) -> str:
    try:
        return " ".join(child.cmdline()) or child.name()
    except psutil.NoSuchProcess:
        return ""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Shows what the fault tests measured; a run of the full counts puts it into docs/benchmarks.md."""
    if found := fault_figures.lines():
        terminalreporter.section("measured")
        terminalreporter.write_line("\n".join(found))
    if found and fault_figures.FULL and set(terminalreporter.config.args) >= FAULTS:
        stats = terminalreporter.stats
        failed = len(stats.get("failed", ())) + len(stats.get("error", ()))
        fault_figures.publish(len(stats.get("passed", ())), failed, monotonic() - BEGAN)
