"""Declarations of endpoints: what they are made into, and what keeps a gateway from starting."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Annotated, Any, Literal, cast

import httpx
import pytest
from fastapi import FastAPI, Query, Request
from fastapi.responses import Response

import gateway.api.admin
import gateway.api.data
from gateway.api import routes
from gateway.api.binding import router
from gateway.api.endpoint import BodyBounds, Endpoint, Handlers, Id, Planned, endpoint
from gateway.api.table import INFER, OPERATOR, PUBLIC, Route
from gateway.dialects.schema import Strict
from gateway.errors import ApiError
from gateway.server.bodies import BodyBudget, BodyReservation
from gateway.server.client import ClientConnection
from ratchet.config import LimitsConfig


class Named(Strict):
    name: str
    size: int = 1


class Optional(Strict):
    size: int = 1


class Samples(Handlers):
    """Handlers of every kind."""

    body_bounds = BodyBounds(1000, 5, b"{}")

    @endpoint("GET", "/samples/{id}", PUBLIC, query={"extra": {"type": "object"}})
    async def get(
        self,
        request: Request,
        item: Id,
        limit: Annotated[int, Query(ge=1)] = 20,
        order: Annotated[Literal["asc", "desc"], Query()] = "asc",
        after: Annotated[str | None, Query(max_length=9)] = None,
    ) -> object:
        """Describe a sample.

        More of it.
        """
        return {"item": item, "limit": limit, "order": order, "after": after, "path": request.url.path}

    @endpoint("POST", "/samples", PUBLIC, status=201)
    async def create(self, body: Named) -> object:
        """Create a sample."""
        return {"name": body.name, "size": body.size}

    @endpoint("POST", "/samples/{id}/resize", PUBLIC)
    async def resize(self, item: Id, body: Optional) -> object:
        """Resize a sample."""
        return [item, body.size]

    @endpoint("PUT", "/samples/{id}", PUBLIC, form=Named, media_types=("text/plain",))
    async def put(self, item: Id, body: dict[str, Any]) -> object:
        """Replace a sample."""
        return Response(f"{item} {sorted(body)}", 203)


GET, CREATE, RESIZE, PUT = Samples.endpoints
MODULES = [
    importlib.import_module(found.name)
    for package in (gateway.api.data, gateway.api.admin)
    for found in pkgutil.iter_modules(package.__path__, package.__name__ + ".")
]


def client() -> httpx.AsyncClient:
    app = FastAPI()
    services: Any = None
    app.include_router(router([Samples(services)]))

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, ApiError)
        return Response(error.body, error.status)

    app.add_exception_handler(ApiError, refused)

    async def connected(scope: Any, receive: Any, send: Any) -> None:
        """Adds what the server and the plane put in a scope, for a request that came whole."""
        connection = ClientConnection(cast(Any, None), cast(Any, None), cast(Any, None))
        connection.request_complete = True
        scope["state"] = {"connection": connection, "body_reservation": BodyReservation(BodyBudget(LimitsConfig()))}
        await app(scope, receive, send)

    return httpx.AsyncClient(transport=httpx.ASGITransport(connected), base_url="http://gateway")


def test_a_declaration_says_all_that_the_document_needs() -> None:
    assert (GET.method, GET.path, GET.scopes, GET.summary) == ("GET", "/samples/{id}", PUBLIC, "Describe a sample.")
    assert GET.query == {
        "limit": {"type": "integer", "minimum": 1, "default": 20},
        "order": {"type": "string", "enum": ["asc", "desc"], "default": "asc"},
        "after": {"type": "string", "maxLength": 9},
        "extra": {"type": "object"},
    }
    assert [(one.body, one.body_required) for one in Samples.endpoints] == [(None, False), (Named, True), (Optional, False), (Named, True)]
    assert (CREATE.status, PUT.media_types) == (201, ("text/plain",))


async def test_a_handler_is_given_its_path_its_query_and_its_body() -> None:
    async with client() as http:
        answer = await http.get("/samples/a?limit=3&after=x")
        assert answer.json() == {"item": "a", "limit": 3, "order": "asc", "after": "x", "path": "/samples/a"}
        answer = await http.post("/samples", json={"name": "b"})
        assert (answer.status_code, answer.json()) == (201, {"name": "b", "size": 1})
        assert answer.headers["content-type"] == "application/json"
        assert (await http.post("/samples/c/resize")).json() == ["c", 1]
        answer = await http.put("/samples/d", json={"anything": 1})
        assert (answer.status_code, answer.text) == (203, "d ['anything']")


@pytest.mark.parametrize("body", [b"", b"{}", b'{"name": 1}', b'{"name": "a", "colour": "red"}', b'{"name": [[[[[[]]]]]]}', b"[]"])
async def test_a_body_that_does_not_fit_its_form_is_refused(body: bytes) -> None:
    async with client() as http:
        answer = await http.post("/samples", content=body)
        assert answer.status_code == 400
        assert answer.json()["error"]["message"]
        assert (await http.post("/samples", content=b" " * 1001)).status_code == 413


def test_a_handler_that_is_not_declared_cannot_be_imported() -> None:
    with pytest.raises(TypeError, match=r"Silent.get has no @endpoint"):

        class Silent(Handlers):
            async def get(self) -> object:
                """Describe nothing."""
                return None


def test_a_handler_that_is_not_described_cannot_be_imported() -> None:
    with pytest.raises(TypeError, match="no docstring"):

        class Silent(Handlers):
            @endpoint("GET", "/silent", PUBLIC)
            async def get(self) -> object:
                return None


@pytest.mark.parametrize("handlers", [v for m in MODULES for v in vars(m).values() if isinstance(v, type) and issubclass(v, Handlers)])
def test_every_class_of_handlers_is_served_by_a_plane(handlers: type[Handlers]) -> None:
    assert handlers is Handlers or handlers in (*routes.DATA_HANDLERS, *routes.ADMIN_HANDLERS)


def test_an_endpoint_without_a_handler_cannot_be_served() -> None:
    class Bare(Handlers):
        get = Endpoint("GET", "/bare", PUBLIC, "Nothing.")

    services: Any = None
    with pytest.raises(TypeError, match="GET /bare has no handler"):
        router([Bare(services)])


def test_the_methods_of_a_path_are_one_route() -> None:
    declared = [Endpoint("GET", "/a", INFER, "", x_api_key=True), Endpoint("POST", "/a", INFER, "", operation="chat"), GET]
    found = routes.routes(declared, [Planned("PUT DELETE", "/a", INFER), Planned("GET", "/b", OPERATOR)])
    assert found == (
        Route("/a", INFER, frozenset({"GET", "POST"}), frozenset({"PUT", "DELETE"}), x_api_key=True, operation="chat"),
        Route("/samples/{id}", PUBLIC, frozenset({"GET"})),
        Route("/b", OPERATOR, frozenset(), frozenset({"GET"})),
    )


def test_a_method_that_is_declared_twice_is_refused() -> None:
    with pytest.raises(ValueError, match=r"/samples/\{id\} is declared twice"):
        routes.routes([GET, PUT, GET])
    with pytest.raises(ValueError, match=r"/samples/\{id\} is declared twice"):
        routes.routes([GET], [Planned("GET", "/samples/{id}", PUBLIC)])


def test_the_methods_of_a_path_need_the_same_scopes() -> None:
    with pytest.raises(ValueError, match="different scopes"):
        routes.routes([Endpoint("GET", "/a", INFER, ""), Endpoint("POST", "/a", OPERATOR, "")])
