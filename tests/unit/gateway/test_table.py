"""The table of routes."""

from __future__ import annotations

from gateway.api.routes import ADMIN, DATA
from gateway.api.table import Table


def test_the_table_finds_exactly_its_paths() -> None:
    for routes in (DATA, ADMIN):
        table = Table(routes)
        assert len({route.path for route in routes}) == len(routes)
        for route in routes:
            found = table.find(route.path.replace("{", "").replace("}", ""))
            assert found is route
            assert not route.built & route.planned
            assert table.find(route.path.rstrip("/") + "//") is None
    assert Table(DATA).find("/v1/models/a\n") is not Table(DATA).find("/v1/models")
