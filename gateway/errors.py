"""Errors for clients, with OpenAI's statuses and body `{"error": {message, type, param, code}}`."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import msgspec

from ratchet.errors import RatchetError, StoreError, StoreUnavailable

TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class ApiError(RatchetError):
    """A response with an error. `kind` is its `type`, if not the usual one of its status. `retry_after`, in seconds, becomes a header."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        kind: str | None = None,
        retry_after: float | None = None,
        headers: Iterable[tuple[bytes, bytes]] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.retry_after = retry_after
        self._kind = kind
        self._headers = headers

    @property
    def body(self) -> bytes:
        """OpenAI's error object, as JSON."""
        kind = self._kind or TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return msgspec.json.encode({"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}})

    @property
    def event(self) -> bytes:
        """The payload of an `error` event, for clients of OpenAI's responses and of Anthropic's messages alike."""
        tree = msgspec.json.decode(self.body)
        return msgspec.json.encode({"type": "error", "code": self.code, "message": str(self), "param": self.param, **tree})

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The headers of the response, `retry-after` among them."""
        if self.retry_after is None:
            return [*self._headers]
        return [*self._headers, (b"retry-after", b"%d" % max(1, math.ceil(self.retry_after)))]


class Unread(ApiError):
    """An error that is sent before the request's body was read to its end. The connection closes after it."""


def invalid(message: str, param: str | None = None, code: str | None = "invalid_value") -> ApiError:
    """400: the request itself is wrong."""
    return ApiError(400, message, param=param, code=code)


def not_found(message: str, param: str | None = None, code: str = "not_found") -> ApiError:
    return ApiError(404, message, param=param, code=code)


def conflict(message: str) -> ApiError:
    """409: what is asked for does not fit the state of things now."""
    return ApiError(409, message, code="conflict")


def no_model(name: str) -> ApiError:
    """404 in OpenAI's words; a name of unreasonable length is not repeated."""
    shown = name if len(name) <= 100 else name[:100] + "..."
    return not_found(f"The model {shown!r} does not exist or you do not have access to it.", "model", "model_not_found")


def unavailable(message: str, code: str, retry_after: float = 1.0) -> ApiError:
    """503: nothing wrong with the request; the same one may succeed later."""
    return ApiError(503, message, code=code, retry_after=retry_after)


def out_of_time() -> ApiError:
    """504: the request took longer than any may."""
    return ApiError(504, "The answer took longer than gateway.total_seconds.", code="timeout")


def store_unavailable() -> ApiError:
    return unavailable("The store does not answer; try again.", "store_unavailable")


def internal_error() -> ApiError:
    """500: a fault of ours; its log has it, and never the client."""
    return ApiError(500, "The gateway failed; see its log.", code="internal_error")


@contextmanager
def store_may_fail(log: logging.Logger, what: str) -> Iterator[None]:
    """For what is tried again anyway: passes over a store that is away; any other StoreError is a fault of ours and logged."""
    try:
        yield
    except StoreUnavailable:
        pass
    except StoreError as error:
        log.error("%s failed: %s", what, error)
