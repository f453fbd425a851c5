"""The ways to remove an optimisation: they change what is there, and fail if it is not."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from bench.without import OPTIMISATIONS
from bench.without.optimisation import optimisation, override, replace
from bench.without.process import plain_class
from gateway.server import http, plane

ALL = """
import os, sys
from bench.without import OPTIMISATIONS
import gateway.__main__
for found in OPTIMISATIONS.values():
    child = os.fork()
    if child == 0:
        try:
            found.remove()
        except BaseException as error:
            sys.stderr.write(f"{found.name}: {error!r}\\n")
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        sys.exit(1)
"""


def test_what_each_optimisation_changes_is_still_in_the_gateway() -> None:
    done = subprocess.run([sys.executable, "-c", ALL], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_optimisation_is_named_after_the_function_that_removes_it() -> None:
    @optimisation("does this", instead="does that")
    def something() -> None:
        pass

    assert (something.name, something.does, something.instead) == ("something", "does this", "does that")
    assert all(found.name == name and found.does and found.instead for name, found in OPTIMISATIONS.items())


def test_an_attribute_that_is_not_there_is_not_set() -> None:
    owner = SimpleNamespace(there=1)
    override(owner, "there", 2)
    assert owner.there == 2
    with pytest.raises(AttributeError):
        override(owner, "misspelt", 2)


def test_a_function_is_replaced_in_every_module_that_imported_it() -> None:
    old = http.header

    def other(scope: Any, name: bytes) -> str | None:
        return "other"

    replace(old, other)
    try:
        assert plane.header is http.header is other
    finally:
        replace(other, old)
    assert plane.header is http.header is old


def test_what_no_module_names_is_not_replaced() -> None:
    with pytest.raises(LookupError):
        replace(object(), object())


class Point(msgspec.Struct, frozen=True):
    x: int
    y: int = 2
    tags: list[str] = msgspec.field(default_factory=list)

    @property
    def sum(self) -> int:
        return self.x + self.y

    def moved(self, by: int) -> int:
        return self.sum + by


def test_a_plain_class_has_the_fields_defaults_and_methods_of_the_struct() -> None:
    plain = plain_class(Point)
    one, other = plain(1), plain(x=1, y=5)
    assert dataclasses.is_dataclass(plain) and not issubclass(plain, msgspec.Struct)
    assert (one.x, one.y, one.tags, one.sum, one.moved(1)) == (1, 2, [], 3, 4)
    assert (other.sum, one.tags is other.tags) == (6, False)
    with pytest.raises(TypeError):
        plain()
