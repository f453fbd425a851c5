"""Split server-sent events out of bytes as they arrive (WHATWG HTML, section 9.2)."""

from __future__ import annotations

DONE = b"[DONE]"


def split(buffer: bytes) -> tuple[list[bytes], bytes]:
    """The `data` payloads of the events that `buffer` ends, in order, and the rest that belongs to the next one.

    Comments and other fields are dropped; an event with no data yields nothing. Both LF and CR LF end a line.
    """
    if b"\r" in buffer:
        return _split_crlf(buffer)
    end = buffer.find(b"\n")
    if end == len(buffer) - 2 and buffer.startswith(b"data: ") and buffer.endswith(b"\n"):  # one event of one line, as most reads bring
        return [buffer[6:end]], b""
    *events, rest = buffer.split(b"\n\n")
    plain = [event[6:] for event in events if event.startswith(b"data: ") and b"\n" not in event]
    return plain if len(plain) == len(events) else [p for p in map(_payload, events) if p is not None], rest


def split_named(buffer: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """As `split`, each payload after its event's name (b"message" where it has none)."""
    *events, rest = buffer.replace(b"\r\n", b"\n").split(b"\n\n")
    return [(_name(event), payload) for event in events if (payload := _payload(event)) is not None], rest


def frame(*payloads: bytes) -> bytes:
    """An event for each payload; none holds a line break."""
    return b"data: " + b"\n\ndata: ".join(payloads) + b"\n\n"


def _split_crlf(buffer: bytes) -> tuple[list[bytes], bytes]:
    # A CR at the very end may be half of a CR LF: it waits for the next bytes.
    held = b"\r" if buffer.endswith(b"\r") else b""
    body = buffer[: len(buffer) - len(held)].replace(b"\r\n", b"\n")
    *events, rest = body.split(b"\n\n")
    return [p for p in map(_payload, events) if p is not None], rest + held


def _name(event: bytes) -> bytes:
    names = [line[6:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"event:")]
    return names[-1] if names else b"message"


def _payload(event: bytes) -> bytes | None:
    if event.startswith(b"data: ") and b"\n" not in event:
        return event[6:]
    lines = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None
