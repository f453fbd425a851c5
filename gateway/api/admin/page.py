"""The status page: one file, nothing fetched from elsewhere."""

from __future__ import annotations

from importlib.resources import files

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from gateway.services import Services

POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'"
HEADERS = {"content-security-policy": POLICY, "x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}


def router(_: Services) -> APIRouter:
    text = (files("gateway.api.admin") / "page.html").read_text(encoding="utf-8")
    routes = APIRouter()

    @routes.get("/")
    async def page() -> HTMLResponse:
        return HTMLResponse(text, headers=HEADERS)

    return routes
