"""What the demo's clients saw: one record a request, and the log of all."""

from __future__ import annotations

from dataclasses import dataclass, field

from ratchet.demo.gaps import Gap, Stamp, between


@dataclass
class Exchange:
    """One request and what came of it. `error` is None only if the answer came whole: every choice with its finish
    reason and, streamed, the closing `[DONE]`."""

    topic: str
    model: str
    streamed: bool
    started: Stamp
    id: str = ""
    policy: str = ""
    answers: dict[int, str] = field(default_factory=dict)
    finished: set[int] = field(default_factory=set)
    stamps: dict[int, list[Stamp]] = field(default_factory=dict)
    tokens: int = 0
    error: str | None = None
    ended: Stamp | None = None

    @property
    def gaps(self) -> list[Gap]:
        """Chunk gaps, each within one choice's answer."""
        return [gap for stamps in self.stamps.values() for gap in between(stamps)]

    @property
    def first_token_seconds(self) -> float | None:
        """Seconds from the request to the first chunk with text."""
        firsts = [stamps[0].mono for stamps in self.stamps.values() if stamps]
        return min(firsts) - self.started.mono if firsts else None

    def check(self, n: int, *, done: bool) -> None:
        """Notes in `error` what is missing of an answer with `n` choices."""
        if not self.id:
            self.error = "no id"
        elif self.finished != set(range(n)):
            self.error = f"{len(self.finished)} of {n} choices finished"
        elif self.streamed and not done:
            self.error = "no [DONE]"


@dataclass
class Log:
    """Everything the demo's clients asked. A failed post of feedback is a failed request too."""

    exchanges: list[Exchange] = field(default_factory=list)
    posted: int = 0
    refused: list[str] = field(default_factory=list)

    @property
    def failures(self) -> list[str]:
        return [f"{e.model}: {e.error}" for e in self.exchanges if e.error is not None] + self.refused

    @property
    def counts(self) -> dict[str, int]:
        """`requests` of the contract's JSON; chats and feedback together."""
        return {
            "total": len(self.exchanges) + self.posted + len(self.refused),
            "failed": len(self.failures),
            "streamed": sum(e.streamed for e in self.exchanges),
        }

    @property
    def tokens(self) -> int:
        return sum(e.tokens for e in self.exchanges)

    @property
    def gaps(self) -> list[Gap]:
        return [gap for e in self.exchanges for gap in e.gaps]
