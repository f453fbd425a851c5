"""The status page: one file that fetches nothing from elsewhere."""

from __future__ import annotations

from importlib.resources import files

from fastapi.responses import HTMLResponse

from gateway.api.endpoint import Handlers, endpoint
from gateway.api.table import PUBLIC
from gateway.services import Services

POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'"
HEADERS = {"content-security-policy": POLICY, "x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}


class StatusPage(Handlers):
    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self._text = (files("gateway.api.admin") / "page.html").read_text(encoding="utf-8")

    @endpoint("GET", "/", PUBLIC, media_types=("text/html",))
    async def page(self) -> object:
        """The status page."""
        return HTMLResponse(self._text, headers=HEADERS)
