"""One optimisation that can be removed, and the two ways to put other code in its place."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

PACKAGES = ("gateway.", "engines.", "ratchet.")


@dataclass(frozen=True)
class Optimisation:
    """`does` is what the gateway does, `instead` what it does once `remove` was called."""

    name: str
    does: str
    instead: str
    remove: Callable[[], None]


def optimisation(does: str, instead: str) -> Callable[[Callable[[], None]], Optimisation]:
    """Make an Optimisation of the decorated function, which removes it and gives it its name."""
    return lambda remove: Optimisation(remove.__name__, does, instead, remove)


def override(owner: Any, name: str, new: object) -> None:
    """Set an attribute of a class or module. AttributeError if it has none of that name, since nothing would change."""
    getattr(owner, name)
    setattr(owner, name, new)


def replace(old: object, new: object) -> None:
    """Put `new` in place of `old` in all loaded modules that name it. LookupError if there is none, since nothing would change."""
    places = [(module, name) for module in _loaded() for name, found in vars(module).items() if found is old]
    if not places:
        raise LookupError(f"no loaded module names {old!r}")
    for module, name in places:
        setattr(module, name, new)


def _loaded() -> list[ModuleType]:
    return [module for name, module in sys.modules.items() if name.startswith(PACKAGES)]
