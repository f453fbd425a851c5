"""Does an engine that already runs really generate?"""

from __future__ import annotations

from typing import Any

import httpx

from ratchet.clock import monotonic
from ratchet.config import EngineConfig
from ratchet.errors import EngineRefused, EngineUnavailable

TIMEOUT_SECONDS = 120.0
ASK = {"messages": [{"role": "user", "content": "Say one word."}], "max_tokens": 1}


async def generates(config: EngineConfig) -> str:
    """What was seen after a listing and one chat completion. EngineError: it does not answer, or refuses."""
    headers = {"authorization": f"Bearer {config.api_key}"} if config.api_key else {}
    async with httpx.AsyncClient(base_url=config.url or "", headers=headers, timeout=TIMEOUT_SECONDS, trust_env=False) as client:
        listed = [str(entry["id"]) for entry in (await _call(client, "GET", "/v1/models"))["data"]]
        served = config.served_name or (listed[0] if listed else "")
        started = monotonic()
        answer = await _call(client, "POST", "/v1/chat/completions", {"model": served, **ASK})
    if not answer.get("choices"):
        raise EngineRefused(f"{config.url} answered without a choice", status=200)
    return f"{served} generated a token in {monotonic() - started:.2f} s"


async def _call(client: httpx.AsyncClient, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    try:
        answer = await client.request(method, path, json=body)
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise EngineUnavailable(f"no answer from {client.base_url} ({type(error).__name__})") from None
    if answer.is_error:
        raise EngineRefused(f"{client.base_url} answers {answer.status_code} to {path}", status=answer.status_code, body=answer.content)
    try:
        found = answer.json()
    except ValueError:
        found = None
    if not isinstance(found, dict) or (method == "GET" and not isinstance(found.get("data"), list)):
        raise EngineRefused(f"{client.base_url} is no OpenAI-compatible engine", status=answer.status_code)
    return found
