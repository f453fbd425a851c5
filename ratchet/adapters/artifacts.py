"""Artifacts: adapters and checkpoints, each known by the sha256 of an index that names all its files.

An index is a JSON object whose `files` maps each file's name to its sha256; whoever knows the index's own sha256, the
artifact's digest, can verify every byte. Artifacts lie below the data directory, where engines load adapters from. With
`artifacts.url` each is also put in a folder that several machines share, as DIGEST/index.json and the files beside it.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from ratchet import durable
from ratchet.config import Config
from ratchet.errors import AdapterError, ConfigError

DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
MAX_INDEX_BYTES = 16 * 2**20
SHARED_INDEX = "index.json"


@dataclass(frozen=True)
class Place:
    """Where an artifact lies, relative to the data directory: the folder of its files, and its index in that folder or beside it."""

    folder: Path
    index: Path


Layout = Callable[[str], Place]
"""From an artifact's digest to its place. It is only called with 64 hex digits."""


@dataclass(frozen=True)
class Artifact:
    """An artifact that was verified: its folder on this machine, its index and its files' contents."""

    folder: Path
    index: bytes
    files: dict[str, bytes]


class ArtifactStore:
    """The artifacts of one data directory and, if there is one, of the shared folder. Safe for several processes at once."""

    def __init__(self, data: Path, shared: Path | None = None) -> None:
        self.data = data.resolve()
        self._shared = shared

    @classmethod
    def of(cls, config: Config, data: Path) -> ArtifactStore:
        """The store of `config` on the data directory `data`."""
        return cls(data, config.artifacts.folder)

    def check(self) -> None:
        """Write to the shared folder and delete it again. ConfigError if that is not possible."""
        if self._shared is None:
            return
        probe = self._shared / f"{durable.UNFINISHED}{secrets.token_hex(8)}"
        try:
            durable.write(probe, b"")
            probe.unlink()
        except OSError as error:
            raise ConfigError(f"artifacts.url: {self._shared} cannot be written ({error.strerror})") from None

    def put(self, layout: Layout, index: bytes, files: Mapping[str, bytes]) -> tuple[str, Path]:
        """Write an artifact durably, here and to the shared folder; return its digest and its folder here.

        Writing one again changes nothing; one that is damaged is replaced. AdapterError if it cannot be written.
        """
        found = digest(index)
        place = layout(found)
        _put(self.data, place, found, index, files)
        if (shared := self._mounted()) is not None:
            _put(shared, _shared_place(found), found, index, files)
        return found, self.data / place.folder

    def fetch(self, wanted: str, layout: Layout) -> Artifact:
        """Return the artifact whose digest is `wanted`, every byte verified; what is missing or damaged here is copied from
        the shared folder.

        AdapterError if `wanted` is no digest, or no whole copy is to be had.
        """
        place = layout(checked(wanted))
        try:
            return _read(self.data, place, wanted)
        except AdapterError:
            if (shared := self._mounted()) is None:
                raise
        copy = _read(shared, _shared_place(wanted), wanted)
        _put(self.data, place, wanted, copy.index, copy.files)
        return replace(copy, folder=self.data / place.folder)

    def delete(self, unwanted: str, layout: Layout) -> None:
        """Delete an artifact here and in the shared folder. AdapterError if that is not possible."""
        place = layout(checked(unwanted))
        with _as_adapter_error(self.data / place.folder, "deleted"):
            if (shared := self._mounted()) is not None:
                durable.remove(shared / unwanted)
            durable.remove(self.data / place.folder)
            if place.index.parent != place.folder:
                (self.data / place.index).unlink(missing_ok=True)

    def _mounted(self) -> Path | None:
        """The shared folder, if there is one. AdapterError if it is missing: made here, it would hide that it is not mounted."""
        if self._shared is not None and not self._shared.is_dir():
            raise AdapterError(f"artifacts.url: {self._shared} is no folder")
        return self._shared


def digest(content: bytes) -> str:
    """sha256 as 64 hex digits."""
    return hashlib.sha256(content).hexdigest()


def checked(text: str) -> str:
    """`text` if it has the form of a digest, so that it can name a folder. AdapterError otherwise."""
    if DIGEST.fullmatch(text) is None:
        raise AdapterError(f"{text[:80]!r} is no digest, which is 64 hex digits")
    return text


def _shared_place(found: str) -> Place:
    return Place(Path(found), Path(found, SHARED_INDEX))


def _read(root: Path, place: Place, wanted: str) -> Artifact:
    """Read an artifact whole. AdapterError if a byte, a file or the digest is not what it must be, or a symlink is on the way."""
    with _as_adapter_error(root / place.folder, "read"):
        for depth in range(1, len(place.folder.parts) + 1):
            _expect(stat.S_ISDIR, root.joinpath(*place.folder.parts[:depth]))
        index = _content(root / place.index, wanted, MAX_INDEX_BYTES)
        hashes = _hashes(index)
        inside = {place.index.name} if place.index.parent == place.folder else set()
        present = {entry.name for entry in (root / place.folder).iterdir()}
        if present != hashes.keys() | inside:
            raise AdapterError(f"holds {sorted(present)}, not exactly {sorted(hashes.keys() | inside)}")
        files = {name: _content(root / place.folder / name, hashes[name]) for name in sorted(hashes)}
        return Artifact(root / place.folder, index, files)


def _put(root: Path, place: Place, found: str, index: bytes, files: Mapping[str, bytes]) -> None:
    """Write an artifact below `root` unless it is there, whole."""
    target = root / place.folder
    with _as_adapter_error(target, "written"):
        _make_parent(root, target.parent)
        existed = target.exists()
        try:
            _read(root, place, found)
        except AdapterError:
            if existed:
                durable.remove(target)  # it is damaged; one that another process has just finished stays
            _write(root, place, index, files)


def _make_parent(root: Path, parent: Path) -> None:
    durable.make(parent)
    if not parent.resolve().is_relative_to(root.resolve()):
        raise AdapterError("leads out of the data directory")
    durable.sweep(parent)


def _write(root: Path, place: Place, index: bytes, files: Mapping[str, bytes]) -> None:
    """Write the index first where it lies beside the folder, so that a folder that exists always has one."""
    inside = place.index.parent == place.folder
    if not inside:
        durable.write(root / place.index, index)
    with durable.folder(root / place.folder) as unfinished:
        for name, content in {**files, **({place.index.name: index} if inside else {})}.items():
            (unfinished / name).write_bytes(content)


@contextmanager
def _as_adapter_error(folder: Path, what: str) -> Iterator[None]:
    """Say of an error which artifact it is about."""
    try:
        yield
    except OSError as error:
        raise AdapterError(f"{folder}: cannot be {what} ({error.strerror})") from None
    except AdapterError as error:
        raise AdapterError(f"{folder}: {error}") from None


def _hashes(index: bytes) -> dict[str, str]:
    try:
        named = msgspec.json.decode(index, type=_Index).files
    except msgspec.MsgspecError as error:
        raise AdapterError(f"its index is malformed: {error}") from None
    if not all(FILE_NAME.fullmatch(name) for name in named):
        raise AdapterError("its index names a file that is no plain name")
    return named


class _Index(msgspec.Struct):
    """What every index has, whatever else it holds."""

    files: dict[str, str]


def _content(path: Path, wanted: str, most: int | None = None) -> bytes:
    _expect(stat.S_ISREG, path)
    if most is not None and path.stat().st_size > most:
        raise AdapterError(f"{path.name} is larger than {most} bytes")
    content = path.read_bytes()
    if digest(content) != wanted:
        raise AdapterError(f"{path.name} has another sha256 than it must")
    return content


def _expect(kind: Any, path: Path) -> None:
    if not kind(path.lstat().st_mode):
        raise AdapterError(f"{path.name} is not a plain {'folder' if kind is stat.S_ISDIR else 'file'}")
