"""Row 21 of reliability.md: no name from a client leads to a file. The gateway runs under an audit hook that tells what it opens."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from itertools import product
from pathlib import Path
from urllib.parse import quote

import pytest
import pytest_asyncio

from ratchet import names
from tests.support import audited_gateway
from tests.support.fault_figures import FULL, measured
from tests.support.gateway_process import POLICY, Bench, bench
from tests.support.raw_http import Wire, head

pytestmark = pytest.mark.asyncio(loop_scope="module")
CHAT, RATE = "/v1/chat/completions", "/v1/feedback"
STEPS = """../ ..\\ ....// ..;/ .././ %2e%2e%2f %2e%2e/ ..%2f ..%5c %252e%252e%252f %c0%ae%c0%ae%c0%af ..%00/ ..\u2215 \uff0e\uff0e/
    ./../ %u002e%u002e%u002f /../ support/../../ support@1/../../"""
TARGETS = ["etc/passwd", "keys.json", "run/gateway.json", "adapters", "adapters/support/1/adapter_model.safetensors", "proc/self/environ"]
NAMES = r"""/etc/passwd //etc/passwd file:///etc/passwd ~/.ssh/id_rsa ~root C:\Windows\win.ini \\host\share /dev/stdin /proc/self/mem
    .. . ./support support/. support/ support@1/ support@../1 ${HOME} $(id) `id` |id * ? [a-z]* support* {a,b} CON nul
    .htaccess .git/config -rf --help"""
UPS, WHOLE = STEPS.split(), NAMES.split()
WHOLE += ["support@1\x00", "\x00", "support\n", "..\t/", " support"]
FORMS = [up * depth + target for (up, target), depth in zip(product(UPS, TARGETS), [1, 3, 8] * 1000, strict=False)]
FORMS += [base + quote(form, safe="") for base, form in product(["", "support/"], WHOLE)] + WHOLE
USED = FORMS if FULL else FORMS[:: len(FORMS) // 20]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def watched(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    """One replica that holds a published version; the gateway is audited and has opened what any first request opens."""
    async with bench(tmp_path_factory.mktemp("audited"), start=False) as made:
        made.module = "tests.support.audited_gateway"
        await made.start()
        await made.publish(1)
        for path, key in places("nothing", quoted=True):
            await made.call("GET", path, key=key)
        for path, body, key in bodies("nothing"):
            await made.call("POST", path, body, key=key)
        await made.call("GET", f"/admin/policies/{POLICY}/versions/1", key="operator")
        yield made


def segment(form: str) -> str:
    """`form` as one segment of a path, which the test's own client does not tidy up."""
    return quote(form, safe="").replace(".", "%2E")


def places(form: str, *, quoted: bool) -> list[tuple[str, str]]:
    """Every path with a name in it, and a key that may ask for it."""
    name = segment(form) if quoted else form
    admin = ["{}", "{}/versions/1", POLICY + "/versions/{}"]
    data = [CHAT + "/{}", CHAT + "/{}/messages", "/v1/models/{}"]
    return [(path.format(name), "client") for path in data] + [(f"/admin/policies/{path.format(name)}", "operator") for path in admin]


def bodies(form: str) -> list[tuple[str, str, str]]:
    """Every body with a name in it, or below one: path, JSON, key."""
    chat = {"model": POLICY, "messages": [{"role": "user", "content": "say:x"}]}
    seen = "chatcmpl-" + "0" * 32
    found = [
        (CHAT, {**chat, "model": form}, "client"),
        (CHAT, {**chat, "model": f"{POLICY}@{form}"}, "client"),
        (CHAT + "/" + segment(form), {"metadata": {"a": "b"}}, "client"),
        (RATE, {"target": seen, "metric": form, "value": 1}, "client"),
        (RATE, {"target": seen, "metric": "choice", "value": {"target": form, "over": seen}}, "client"),
        *((f"/admin/policies/{segment(form)}/{what}", {"version": 1}, "operator") for what in ("promote", "train")),
        (f"/admin/policies/{segment(form)}/rollback", {"to": 0}, "operator"),
        (f"/admin/policies/{POLICY}/promote", {"version": form}, "operator"),
    ]
    if names.EPISODE_ID.fullmatch(form) is None:  # else it is an episode's name, in order and no path
        found += [(CHAT, {**chat, "metadata": {"episode_id": form}}, "client"), (RATE, {"target": form, "value": 1}, "client")]
    return [(path, json.dumps(body), key) for path, body, key in found]


def opened(made: Bench, since: int) -> list[str]:
    """Audited lines after the first `since` bytes that name a path outside of the data directory."""
    log = (made.data / audited_gateway.FILE).read_bytes()[since:].decode()
    inside = os.path.realpath(made.data)
    paths = [(line, line.split(" ", 1)[1].strip("'\"")) for line in log.splitlines()]
    return [line for line, path in paths if not os.path.realpath(path).startswith(inside + "/")]


def audited_bytes(made: Bench) -> int:
    return (made.data / audited_gateway.FILE).stat().st_size


async def test_there_are_as_many_forms_as_promised() -> None:
    assert len(set(FORMS)) >= 200


async def test_the_audit_hook_tells_what_the_gateway_opens(watched: Bench) -> None:
    assert any("site-packages" in line for line in opened(watched, 0))
    since = audited_bytes(watched)
    answer = await watched.call("GET", f"/admin/policies/{POLICY}/versions/1", key="operator")
    assert answer.json()["manifest"]["files"]
    assert audited_bytes(watched) > since
    assert opened(watched, since) == []


async def test_no_form_of_a_path_passes_for_a_name_and_none_is_opened(watched: Bench) -> None:
    since = audited_bytes(watched)
    asked = 0
    for form in USED:
        for path, key in places(form, quoted=True):
            answer = await watched.call("GET", path, key=key)
            asked += 1
            assert 400 <= answer.status_code < 500, (path, answer.status_code)
        for path, body, key in bodies(form):
            answer = await watched.call("POST", path, body, key=key)
            asked += 1
            assert 400 <= answer.status_code < 500, (path, body, answer.status_code)
    measured(f"{len(USED)} forms in {asked} requests")
    assert opened(watched, since) == []


async def test_no_path_leads_out_of_the_routes_as_it_is_written(watched: Bench) -> None:
    """As raw bytes, since clients' libraries tidy paths up."""
    since = audited_bytes(watched)
    for form in USED:
        raw = "".join(char if "!" < char <= "~" else quote(char) for char in form)
        for path, key in places(raw, quoted=False):
            wire = await Wire.open(watched.admin if key == "operator" else watched.url)
            await wire.send(head("GET", path, authorization=f"Bearer rk-{key}"))
            status = (await wire.answer()).status
            wire.close()
            # What stands behind a `?` or a `#` is no part of the path.
            assert 400 <= status < 500 or "?" in raw or "#" in raw, (path, status)
    assert opened(watched, since) == []


async def test_paths_outside_are_told_from_those_inside(tmp_path: Path) -> None:
    (tmp_path / audited_gateway.FILE).write_text(f"open '{tmp_path}/a'\nopen '/etc/passwd'\nopen '{tmp_path}/../b'\n")
    made = Bench(data=tmp_path, server=None, store=None, fakes={}, config={})  # type: ignore[arg-type]
    assert opened(made, 0) == ["open '/etc/passwd'", f"open '{tmp_path}/../b'"]
