"""A real Open WebUI server pointed at the gateway: chat through its API, and its thumbs as rewards."""

from __future__ import annotations

import asyncio
import json
import socket
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.clients.environments import ROOT, interpreter, surroundings
from tests.support.gateway_process import POLICY, Bench, bench, until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]
STARTED = 180.0
FUNCTION = ROOT / "deploy" / "open-webui" / "ratchet_feedback.py"
HEADERS = {"x-ratchet-episode-id": "owui.{{MESSAGE_ID}}{{TASK}}"}
OFFLINE = {
    "OFFLINE_MODE": "true",
    "HF_HUB_OFFLINE": "1",
    "ENABLE_OLLAMA_API": "false",
    "RAG_EMBEDDING_ENGINE": "openai",
    "BYPASS_EMBEDDING_AND_RETRIEVAL": "true",
    "ANONYMIZED_TELEMETRY": "false",
    "DO_NOT_TRACK": "true",
}
"""It fetches nothing; without embeddings of its own it needs no model."""


class WebUI:
    """A running server and its first user, who is its administrator."""

    def __init__(self, http: httpx.AsyncClient, made: Bench) -> None:
        self.http = http
        self.made = made

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        answer = await self.http.request(method, path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def counted(self, **expected: Any) -> None:
        """Waits until the gateway's ledger says so."""

        async def same() -> bool:
            ledger = (await self.made.call("GET", "/admin/ledger", key="operator")).json()
            return {name: ledger[name] for name in expected} == expected

        await until(same, f"the ledger has {expected}")

    async def chat(self, text: str, **fields: Any) -> httpx.Response:
        """An answer to a message of its own chat, as its page asks for one."""
        messages = [{"role": "user", "content": text}]
        answer = await self.http.post("/api/chat/completions", json={"model": POLICY, "messages": messages, **fields})
        assert answer.status_code == 200, answer.text
        return answer


async def started(process: asyncio.subprocess.Process, http: httpx.AsyncClient, log: Path) -> None:
    async def answers() -> None:
        while True:
            assert process.returncode is None, log.read_text()
            try:
                if (await http.get("/health")).status_code == 200:
                    return
            except httpx.HTTPError:
                await asyncio.sleep(0.2)

    await asyncio.wait_for(answers(), STARTED)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def webui(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WebUI]:
    folder = tmp_path_factory.mktemp("webui")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with bench(tmp_path_factory.mktemp("gateway")) as made:
        connection = {"OPENAI_API_BASE_URLS": made.url + "/v1", "OPENAI_API_KEYS": "rk-client"}
        own = {"DATA_DIR": str(folder), "WEBUI_SECRET_KEY": uuid.uuid4().hex, "OPENAI_API_CONFIGS": json.dumps({"0": {"headers": HEADERS}})}
        env = surroundings(made.url, "rk-client", **OFFLINE, **connection, **own)
        command = str(interpreter("open-webui").with_name("open-webui"))
        with (folder / "log").open("wb") as log:
            argv = [command, "serve", "--host", "127.0.0.1", "--port", str(port)]
            process = await asyncio.create_subprocess_exec(*argv, cwd=folder, env=env, stdout=log, stderr=log)
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
                await started(process, http, folder / "log")
                user = {"name": "Ada", "email": "ada@example.org", "password": "a long password"}
                told = (await http.post("/api/v1/auths/signup", json=user)).json()
                http.headers["authorization"] = f"Bearer {told['token']}"
                yield WebUI(http, made)
        finally:
            process.terminate()
            await process.wait()


async def test_its_list_of_models_is_the_gateways(webui: WebUI) -> None:
    names = {model["id"] for model in (await webui.call("GET", "/api/models"))["data"]}
    assert {POLICY, f"{POLICY}@0", "smollm2"} <= names


async def test_a_chat_is_answered_whole_and_streamed(webui: WebUI) -> None:
    whole = (await webui.chat("say:naïve 🙂", stream=False)).json()
    assert whole["choices"][0]["message"]["content"] == "naïve 🙂"
    stream = await webui.chat("say:one two", stream=True)
    events = [json.loads(line[6:]) for line in stream.text.splitlines() if line.startswith("data: {")]
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in events if event.get("choices")) == "one two"


async def test_a_thumb_becomes_a_reward_and_another_one_revises_it(webui: WebUI) -> None:
    text = FUNCTION.read_text()
    form = {"id": "ratchet_feedback", "name": "Ratchet feedback", "content": text, "meta": {"description": "Thumbs"}}
    await webui.call("POST", "/api/v1/functions/create", form)
    valves = {"url": webui.made.url + "/v1", "key": "rk-feedback"}
    await webui.call("POST", "/api/v1/functions/id/ratchet_feedback/valves/update", valves)
    await webui.call("POST", "/api/v1/functions/id/ratchet_feedback/toggle")
    history: dict[str, Any] = {"messages": {}, "currentId": None}
    place = await webui.call(
        "POST", "/api/v1/chats/new", {"chat": {"title": "A chat", "models": [POLICY], "messages": [], "history": history}}
    )
    message = str(uuid.uuid4())
    answer = (await webui.chat("say:good", stream=False, chat_id=place["id"], id=message)).json()
    kept = await webui.made.store.interactions.get(answer["id"], "acme")
    assert kept is not None
    assert kept.episode_id == f"owui.{message}"
    rating = {"type": "rating", "data": {"rating": 1, "model_id": POLICY}, "meta": {"chat_id": place["id"], "message_id": message}}
    given = await webui.call("POST", "/api/v1/evaluations/feedback", rating)
    await webui.counted(received=1, pending=1, rejected={})
    await webui.call("POST", f"/api/v1/evaluations/feedback/{given['id']}", {**rating, "data": {"rating": -1, "model_id": POLICY}})
    await webui.counted(received=2, pending=1, rejected={"superseded": 1})
