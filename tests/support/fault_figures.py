"""What the fault tests measured. A run of the full counts (`make test-faults`) writes it into docs/benchmarks.md."""

from __future__ import annotations

import os

from bench import section

FULL = os.environ.get("RATCHET_FAULTS") == "full"
"""Whether the counts of the promises are run, and not a tenth of them."""
_measured: list[tuple[str, str]] = []


def measured(text: str, *values: object) -> None:
    """A figure of the test that runs; `text % values`."""
    text = text % values if values else text
    name = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0].removeprefix("tests/")
    _measured.append((name, " ".join(text.split())))


def lines() -> list[str]:
    """All of them, each after its test's name."""
    return [f"{name}: {text}" for name, text in _measured]


def publish(passed: int, failed: int, seconds: float) -> None:
    """Writes them, with how the run ended and how loaded the machine was."""
    ended = (
        f"`make test-faults`: {passed} passed, {failed} failed in {seconds:,.0f} s; load of the last 15 minutes {os.getloadavg()[2]:.1f}."
    )
    rows = [(f"`{name}`", text.replace("|", "/")) for name, text in _measured]
    section.replace("faults", "Faults and attacks at full counts", f"{ended}\n\n{section.table(('test', 'measured'), rows)}")
