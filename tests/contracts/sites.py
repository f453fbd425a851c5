"""An engine under contract."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from engines import Captured, EngineControl, EngineWire, Wants
from engines.reconcile import reconcile
from engines.types import Request
from ratchet import names

BASE = "smollm2"
JSON = {"content-type": "application/json"}


@dataclass
class Site:
    """An engine, the form that it speaks, and what it takes to make it say a text."""

    engine: EngineControl
    wire: EngineWire
    real: bool

    def asked_to_say(self, text: str) -> dict[str, Any]:
        if not self.real:
            return {"messages": [{"role": "user", "content": f"say:{text}"}]}
        if not text:  # the end token outbids everything
            return {"messages": [{"role": "user", "content": "Hi"}], "logit_bias": {"2": 100}}
        return {"messages": [{"role": "user", "content": "Hi"}], "structured_outputs": {"choice": [text]}}

    def decoded(self, ids: list[int]) -> str:
        if not self.real:
            return bytes(i for i in ids if i < 256).decode(errors="ignore")
        from transformers import AutoTokenizer

        from ratchet.models import resolve

        text = AutoTokenizer.from_pretrained(resolve(BASE)).decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)

    async def hold(self, wanted: Mapping[str, Path]) -> list[str]:
        """Makes the engine hold exactly these adapters, in the way of its kind; the names that it then lists."""
        await reconcile(self.engine, wanted, unload=True)
        return await self.engine.models()

    def request(self, route: str, fields: Mapping[str, Any], public_id: str) -> Request:
        """What the gateway sends for a client's `fields`, for an answer that is to be recorded."""
        return self.wire.request(route, fields, model=str(fields["model"]), public_id=public_id, record=True)


async def post(session: aiohttp.ClientSession, site: Site, request: Request) -> tuple[int, bytes]:
    """The status and the body of the engine's answer."""
    url = site.engine.record.url + request.path
    async with session.post(url, data=request.body, headers={**JSON, **request.headers}) as answer:
        return answer.status, await answer.read()


async def ask(
    session: aiohttp.ClientSession, site: Site, route: str, fields: dict[str, Any], wants: Wants, prefix: str, shown: str
) -> tuple[str, bytes, Captured]:
    """A request as the gateway relays it; the public id, what the client sees (it asked for the model `shown`), the record."""
    public_id = names.mint(prefix)
    status, body = await post(session, site, site.request(route, fields, public_id))
    assert status == 200, body
    if fields.get("stream"):
        capture = site.wire.capture(route, wants, public_id, shown)
        seen = capture.take(body)
        assert capture.fault is None and capture.done
        seen, captured = seen + capture.last, capture.captured()
    else:
        seen, captured = site.wire.whole(route, body, wants, public_id, shown)
    if captured.lacks_prompt:
        captured = captured.with_prompt(await site.engine.prompt_ids(route, fields, fields["model"]))
    return public_id, seen, captured
