"""A record of each request that the demo's users made, and the log of all of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from ratchet.demo.gaps import Gap, Stamp, between


@dataclass
class Exchange:
    """One request and its answer. `error` is None only if the answer is complete: every choice has its finish reason and a
    stream ended with `[DONE]`."""

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
        """The gaps between chunks, each within one choice."""
        return [gap for stamps in self.stamps.values() for gap in between(stamps)]

    def check(self, n: int, *, done: bool) -> None:
        """Set `error` to what an answer with `n` choices lacks, if anything."""
        if not self.id:
            self.error = "no id"
        elif self.finished != set(range(n)):
            self.error = f"{len(self.finished)} of {n} choices finished"
        elif self.streamed and not done:
            self.error = "no [DONE]"


@dataclass
class Log:
    """All requests of the demo's users. Feedback that is refused is a failed request too."""

    exchanges: list[Exchange] = field(default_factory=list)
    posted: int = 0
    refused: list[str] = field(default_factory=list)

    @property
    def failures(self) -> list[str]:
        return [f"{e.model}: {e.error}" for e in self.exchanges if e.error is not None] + self.refused

    @property
    def counts(self) -> dict[str, int]:
        """`requests` of the contract's JSON, chats and feedback together."""
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
