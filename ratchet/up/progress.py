"""What `ratchet up` prints while it starts: a spinner on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from ratchet.clock import monotonic


class Progress:
    """Prints the steps of a start to stdout, one at a time."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Show `text` while the block runs, then how long it took."""
        started = monotonic()
        if self.console.is_terminal:
            with self.console.status(text):
                yield
        else:
            self.say(f"{text} ...")
            yield
        self.say(f"{text}: {monotonic() - started:.1f} s")

    def say(self, text: str) -> None:
        """Print one line as it is: keys and paths are not markup."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)
        self.console.file.flush()
