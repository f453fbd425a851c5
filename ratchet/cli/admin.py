"""The CLI's client of the admin API."""

from __future__ import annotations

import re
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import msgspec

from ratchet import names
from ratchet.cli.options import data_directory
from ratchet.errors import ConfigError, RatchetError
from ratchet.keys import KeySpec
from ratchet.up.ready_file import RUN_FILE, Running, read

TIMEOUT_SECONDS = 60.0


class Admin:
    """A client with an operator's key. Every method raises RatchetError if the API does not answer or answers an error."""

    def __init__(self, url: str, key: str) -> None:
        self._http = httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=TIMEOUT_SECONDS, trust_env=False)
        self._url = url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._http.close()

    def policies(self) -> list[dict[str, Any]]:
        """Return all policies with their versions."""
        found: list[dict[str, Any]] = self._call("GET", "/admin/policies")["data"]
        return found

    def policy(self, name: str) -> dict[str, Any]:
        """Return one policy: `live`, `versions`, `status`, ..."""
        return self._call("GET", f"/admin/policies/{checked(name)}")

    def promote(self, name: str, version: int) -> dict[str, Any]:
        """Make `version` live and return the policy's record."""
        return self._call("POST", f"/admin/policies/{checked(name)}/promote", {"version": version})

    def rollback(self, name: str, to: int | None) -> dict[str, Any]:
        """Make `to` live again (None: the version that was live before) and return the policy's record."""
        return self._call("POST", f"/admin/policies/{checked(name)}/rollback", {"to": to})

    def train(self, name: str) -> str:
        """Ask for a training step and return the job's id."""
        return str(self._call("POST", f"/admin/policies/{checked(name)}/train", {})["job"])

    def create_key(self, spec: KeySpec) -> dict[str, Any]:
        """Create a key; return its record and, as `key`, the key itself."""
        return self._call("POST", "/admin/keys", msgspec.to_builtins(spec))

    def keys(self) -> list[dict[str, Any]]:
        """Return all keys, the oldest first."""
        found: list[dict[str, Any]] = self._call("GET", "/admin/keys")["data"]
        return found

    def revoke_key(self, item: str) -> None:
        """Revoke a key by its id, which must have been checked to be well-formed."""
        self._call("DELETE", f"/admin/keys/{item}")

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            answer = self._http.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise RatchetError(f"no answer from the admin API at {self._url} ({type(error).__name__})") from None
        except httpx.InvalidURL:
            raise ConfigError(f"--admin {self._url}: not a URL") from None
        if answer.is_error:
            raise RatchetError(_message(answer))
        try:
            found: dict[str, Any] = answer.json()
        except ValueError:
            raise RatchetError(f"{self._url} answers, but not as Ratchet's admin API") from None
        return found


def connect(admin: str | None, key: str | None, data: Path | None) -> Admin:
    """Return a client for the options given; what is missing is that of the `ratchet up` that runs on the data directory."""
    if admin is None or key is None:
        running = _running(data_directory(data))
        admin, key = admin or running.admin, key or running.keys.operator
    if re.fullmatch(r"[\x21-\x7e]+", key) is None:
        raise ConfigError("--key: a key is printable ASCII without spaces")
    return Admin(admin, key)


def checked(name: str) -> str:
    """Return `name` if it can be a policy's. ConfigError otherwise."""
    if not names.is_name(name):
        raise ConfigError(f"{name!r} cannot be a policy's name")
    return name


def _running(data: Path) -> Running:
    try:
        return read(data / RUN_FILE)
    except (OSError, msgspec.MsgspecError):
        raise RatchetError(f"no `ratchet up` runs on {data}; give --admin and --key, or --data") from None


def _message(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"the admin API answers {answer.status_code}"
