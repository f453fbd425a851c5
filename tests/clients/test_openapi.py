"""schemathesis on the gateway's OpenAPI document: whatever a stranger sends, nothing breaks."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from engines.routes import CHAT, MESSAGES, POOLING, RESPONSES, TEXT, TOKENS
from gateway.api.openapi import document
from gateway.api.routes import ADMIN, DATA, PLANES
from ratchet.types import KeyRecord
from tests.clients.environments import SUITES, beside, interpreter, run
from tests.support.fault_figures import FULL
from tests.support.gateway_process import BASE, POLICY, Bench, bench, start_fake

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(3600)]
KEY, KEY_ID = "rk-everything", "everything"
EXAMPLES, AT_LEAST = (250, 10_000) if FULL else (10, 500)
"""Random cases of an operation, besides the systematic ones; what they must come to in all."""
SEED = () if FULL else ("--seed", "1")
SECONDS = 3000.0
PLANNED = any(route.built and route.planned for route in (*DATA, *ADMIN))
LEFT_OUT = "positive_data_acceptance" + (",unsupported_method,allow_header_conformance,not_a_server_error" if PLANNED else "")
"""The gateway may refuse what a schema allows: rules between fields, a policy's metrics. A planned method answers 501."""
MANY = 20
UNSET = ("launch", "served_name", "api_key", "adapters_at")

log = logging.getLogger(__name__)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def made(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with bench(tmp_path_factory.mktemp("gateway")) as gateway:
        everything = KeyRecord(KEY_ID, "acme", ["infer", "feedback", "operator", "metrics"], 1.0)
        await gateway.store.keys.put(hashlib.sha256(KEY.encode()).hexdigest(), everything)
        await gateway.publish(1)
        gateway.fakes["spare"] = await start_fake()  # nobody has told the gateway of it
        yield gateway


async def known(made: Bench) -> dict[str, list[str]]:
    """Names that exist, by their path; the first of each is never deleted."""
    keys = [await made.call("POST", "/admin/keys", {"tenant": "acme", "scopes": ["infer"]}, key="operator") for _ in range(MANY)]
    responses = [await made.call("POST", RESPONSES, {"model": POLICY, "input": "say:hello"}) for _ in range(MANY)]
    return {
        CHAT: [(await made.chat()).json()["id"] for _ in range(MANY)],
        RESPONSES: [response.json()["id"] for response in responses],
        "/v1/models": [POLICY] * MANY,
        "/admin/policies": [POLICY] * MANY,
        "/admin/keys": [key.json()["id"] for key in keys],
    }


async def fuzzed(made: Bench, plane: str, folder: Path) -> Counter[str]:
    """Cases by `METHOD path status`. AssertionError, with all that schemathesis said, if it found anything."""
    statuses, names = folder / f"{plane}.txt", await known(made)
    relayed = (CHAT, TEXT, RESPONSES, MESSAGES, *POOLING, *TOKENS)
    fields: dict[str, dict[str, Any]] = {
        **{path: {"model": POLICY} for path in relayed},
        "/v1/score": {"model": POLICY, "text_1": "a", "text_2": "b", "queries": None, "documents": None},
        "/v1/feedback": {"target": names[CHAT][0], "metric": "reward", "value": 0.5, "choice": 0},
        "/admin/engines": {"name": "spare", "kind": "fake", "model": BASE, "url": made.fakes["spare"].url, **dict.fromkeys(UNSET)},
        "/admin/policies/{name}/promote": {"version": 1},
        "/admin/policies/{name}/rollback": {"to": 0},
    }
    told = {"STATUSES": str(statuses), "KNOWN": json.dumps(names), "FIELDS": json.dumps(fields), "KEY_ID": KEY_ID}
    hooks = {"SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": str(SUITES)}
    argv = [str(interpreter("schemathesis").with_name("st")), "--config-file", str(SUITES / "schemathesis.toml")]
    argv += ["run", made.url + "/openapi.json", *SEED]
    argv += ["--url", made.url if plane == "data" else made.admin, "--include-tag", plane, "--header", f"Authorization: Bearer {KEY}"]
    argv += ["--max-examples", str(EXAMPLES), "--continue-on-failure", "--no-color", "--checks", "all", "--exclude-checks", LEFT_OUT]
    status, said = await run(argv, folder, beside(made, **hooks, **told), SECONDS)
    assert status == 0, said + made.log()
    return Counter(line.split(" ", 1)[1] for line in set(statuses.read_text().splitlines()))


async def test_nothing_a_stranger_sends_breaks_the_gateway(made: Bench, tmp_path: Path) -> None:
    seen: Counter[str] = Counter()
    for plane in ("data", "control"):
        seen += await fuzzed(made, plane, tmp_path)
    log.info("%s cases: %s", seen.total(), dict(sorted(Counter(line[-3:] for line in seen.elements()).items())))
    assert seen.total() >= AT_LEAST
    # Engine and store were there throughout, so that nothing but what is planned may be told as the server's fault.
    assert not [line for line in seen if line[-3:] >= "500" and line[-3:] != "501"]
    reached = {tuple(line.split(" ")[:2]) for line in seen if line.endswith((" 200", " 201", " 202"))}
    built = {(method.upper(), path) for path, item in document(PLANES)["paths"].items() for method in item if method != "parameters"}
    assert built <= reached
    assert "internal_error" not in made.log()
