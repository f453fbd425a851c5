"""What the process does with objects and ids, and the event loop it runs on."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from typing import Any

import msgspec
import uvloop

from bench.without.optimisation import optimisation, override, replace
from gateway.relay.exchange import Exchange
from gateway.relay.request import InferenceRequest
from gateway.server import ports
from ratchet import names


@optimisation("objects that outlive the start are kept from the cyclic collector, which runs rarely", instead="Python's defaults")
def spared_collector() -> None:
    override(ports, "_tune_garbage_collector", lambda: None)


@optimisation("ids are drawn from a pool of random bytes", instead="one system call for each id")
def id_pool() -> None:
    override(names, "mint", lambda prefix: prefix + os.urandom(names.ID_BYTES).hex())


@optimisation("a request and its exchange are msgspec structs, initialised in C", instead="dataclasses")
def request_structs() -> None:
    replace(InferenceRequest, plain_class(InferenceRequest))
    replace(Exchange, plain_class(Exchange))


def plain_class(struct: type[msgspec.Struct]) -> type[Any]:
    """A dataclass with the fields, properties and methods of `struct`. Defaults belong to its last fields."""
    own, defaults = struct.__struct_fields__, struct.__struct_defaults__
    padded = [*[msgspec.NODEFAULT] * (len(own) - len(defaults)), *defaults]
    fields = [(name, Any, _field(default)) for name, default in zip(own, padded, strict=True)]
    members = {key: value for key, value in vars(struct).items() if key not in own and not key.startswith("__")}
    return dataclasses.make_dataclass(struct.__name__, fields, namespace=members, eq=False)


def _field(default: Any) -> Any:
    if default is msgspec.NODEFAULT:
        return dataclasses.field()
    if hasattr(default, "factory"):
        return dataclasses.field(default_factory=default.factory)
    return dataclasses.field(default=default)


@optimisation("uvloop", instead="asyncio's own event loop")
def event_loop() -> None:
    override(uvloop, "run", asyncio.run)
