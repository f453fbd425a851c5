"""Declare an endpoint: its path, method, scope, description, body and handler, in one place.

A handler is a method of a subclass of `Handlers`:

    class Keys(Handlers):
        @endpoint("DELETE", "/admin/keys/{id}", OPERATOR)
        async def revoke(self, item: Id) -> object:
            \"\"\"Revoke a key.\"\"\"

Its docstring is the description in the OpenAPI document. A parameter called `body` is the request's JSON body, checked against its
annotation; one annotated with FastAPI's `Query` or `Path` is what FastAPI makes of it; `request` is Starlette's request. What it returns is
sent as JSON, unless it is a `Response`. The inference routes, which the relay serves, are declared in `data/inference.py`.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, ClassVar, NamedTuple, get_args

import msgspec
from fastapi import Path, params
from pydantic import BaseModel, TypeAdapter

from gateway.services import Services

JSON, STREAM = "application/json", "text/event-stream"
OPERATOR_BYTES = 2**16
OPERATOR_DEPTH = 8
Form = msgspec.Struct | BaseModel
Handler = Callable[..., Awaitable[object]]
Id = Annotated[str, Path(alias="id")]


class Endpoint(NamedTuple):
    """A method of a path."""

    method: str
    path: str
    scopes: frozenset[str]
    """A key needs one of these. Empty: no key is needed."""
    summary: str
    body: type[Form] | None = None
    """The fields of the request's body. None: no body is read."""
    query: Mapping[str, Any] = {}
    """JSON Schemas of the query parameters."""
    status: int = 200
    """Of a success."""
    media_types: tuple[str, ...] = (JSON,)
    """Of a success."""
    counted: bool = False
    """Whether a request counts against the requests that its key may make."""
    x_api_key: bool = False
    """Whether the key may also be sent as `x-api-key`, as Anthropic's clients do."""
    operation: str = ""
    """`gen_ai.operation.name` of an inference route."""
    handler: Handler | None = None
    """The method of a `Handlers` class. None: the relay."""
    parameters: tuple[inspect.Parameter, ...] = ()
    """Those of the handler, without `self`."""

    @property
    def body_required(self) -> bool:
        """Whether a body must be sent, as one of its fields has no default."""
        if self.body is None:
            return False
        if issubclass(self.body, msgspec.Struct):
            return any(field.required for field in msgspec.structs.fields(self.body))
        return any(field.is_required() for field in self.body.model_fields.values())


class Planned(NamedTuple):
    """Methods, separated by spaces, of a path of the public contract that are not built yet: they are answered with 501."""

    methods: str
    path: str
    scopes: frozenset[str]


class BodyBounds(NamedTuple):
    """What a body may be: its bytes, its depth of nesting, and what an empty one stands for."""

    max_bytes: int
    max_depth: int
    empty: bytes = b""


OPERATOR_BODY = BodyBounds(OPERATOR_BYTES, OPERATOR_DEPTH, b"{}")


class Handlers:
    """The handlers of some endpoints. A public method without a declaration is a TypeError when its class is made."""

    endpoints: ClassVar[tuple[Endpoint, ...]] = ()

    def __init__(self, services: Services) -> None:
        self.services = services

    def __init_subclass__(cls) -> None:
        for name, value in vars(cls).items():
            if inspect.isfunction(value) and not name.startswith("_"):
                raise TypeError(f"{cls.__name__}.{name} has no @endpoint; a method that is no handler begins with an underscore")
        cls.endpoints = tuple(value for value in vars(cls).values() if isinstance(value, Endpoint))

    @property
    def body_bounds(self) -> BodyBounds:
        """Those of the bodies that these handlers take: small, as operators' are."""
        return OPERATOR_BODY


def endpoint(
    method: str,
    path: str,
    scopes: frozenset[str],
    *,
    status: int = 200,
    media_types: tuple[str, ...] = (JSON,),
    counted: bool = False,
    form: type[Form] | None = None,
    query: Mapping[str, Any] | None = None,
) -> Callable[[Handler], Endpoint]:
    """Declare the handler below it. TypeError: it has no docstring.

    `form`: the fields of a `body` that the handler checks itself. `query`: JSON Schemas of parameters that it reads itself.
    """

    def declare(handler: Handler) -> Endpoint:
        if not handler.__doc__:
            raise TypeError(f"{handler.__qualname__} has no docstring to describe {method} {path}")
        _, *found = inspect.signature(handler, eval_str=True).parameters.values()
        body = next((parameter for parameter in found if parameter.name == "body"), None)
        return Endpoint(
            method,
            path,
            scopes,
            handler.__doc__.partition("\n")[0],
            body=form if form is not None or body is None else body.annotation,
            query={**_schemas(found), **(query or {})},
            status=status,
            media_types=media_types,
            counted=counted,
            handler=handler,
            parameters=tuple(found),
        )

    return declare


def as_list(rows: list[Any]) -> dict[str, Any]:
    """The shape of the API's lists that have no pages."""
    return {"object": "list", "data": rows}


def _schemas(found: list[inspect.Parameter]) -> dict[str, Any]:
    """JSON Schemas of the parameters annotated with `Query`: the type beside null, where null stands for a parameter that is left out."""
    queries = [p for p in found if any(isinstance(part, params.Query) for part in get_args(p.annotation)[1:])]
    return {parameter.name: _schema(parameter) for parameter in queries}


def _schema(parameter: inspect.Parameter) -> dict[str, Any]:
    whole = TypeAdapter(parameter.annotation).json_schema()
    schema = next((option for option in whole.get("anyOf", ()) if option.get("type") != "null"), whole)
    return schema if parameter.default is None else {**schema, "default": parameter.default}
