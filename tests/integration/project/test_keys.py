"""Keys: what one may be given, and `ratchet keys` on a store with no gateway."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ratchet import keys
from ratchet.buffer import EmbeddedServer, open_store
from ratchet.cli.app import run
from ratchet.cli.keys import cell, checked
from ratchet.config import StoreConfig
from ratchet.errors import ConfigError
from ratchet.types import KeyRecord

GOOD: dict[str, Any] = {"tenant": "acme", "scopes": ["infer"]}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "ratchet.yaml"
    file.write_text("{}\n")
    return file


def outcome(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    status = run(argv)
    out, err = capsys.readouterr()
    return status, out, err


def stored(data: Path) -> dict[str, KeyRecord | None]:
    """The keys in the store under `data`, read by a server of our own."""

    async def read() -> list[KeyRecord]:
        server = await EmbeddedServer.start(data, StoreConfig())
        try:
            store = await open_store("embedded", StoreConfig(), data=data)
            try:
                return await store.keys.all()
            finally:
                await store.close()
        finally:
            await server.stop()

    return {record.id: record for record in asyncio.run(read())}


def test_a_fresh_key_is_known_by_its_sha256_alone() -> None:
    spec = msgspec.convert({**GOOD, "scopes": ["infer", "feedback", "infer"], "models": ["a", "a@1", "a"], "rpm": 5}, keys.KeySpec)
    key, digest, record = spec.issue()
    assert key.startswith("rk-") and len(key) == 46
    assert digest == hashlib.sha256(key.encode()).hexdigest()
    assert record.id == f"key_{digest[:16]}"
    assert (record.scopes, record.models, record.rpm, record.tpm) == (["infer", "feedback"], ["a", "a@1"], 5, None)
    assert spec.issue()[0] != key
    assert key not in repr(record)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tenant", ""),
        ("tenant", "_ratchet"),
        ("tenant", "a\n"),
        ("tenant", "a" * 64),
        ("models", ["../a"]),
        ("models", ["a@01"]),
        ("models", ["a", "\x00"]),
        ("note", "a\x1b[31m"),
        ("note", "a\nb"),
    ],
)
def test_what_could_reach_a_terminal_or_a_store_key_is_refused(field: str, value: Any) -> None:
    fault = msgspec.convert({**GOOD, field: value}, keys.KeySpec).fault()
    assert fault is not None
    assert fault[0] == field


@pytest.mark.parametrize(
    ("fields", "option"),
    [
        ({"scopes": ["root"]}, "--scope"),
        ({"scopes": []}, "--scope"),
        ({"tenant": "A B"}, "--tenant"),
        ({"models": ["A"]}, "--model"),
        ({"rpm": 10**10}, "--rpm"),
        ({"tpm": 0}, "--tpm"),
        ({"concurrency": 10**6}, "--concurrency"),
        ({"note": "x" * 201}, "--note"),
    ],
)
def test_a_wrong_option_is_named(fields: dict[str, Any], option: str) -> None:
    with pytest.raises(ConfigError, match=f"^{option}: "):
        checked({**GOOD, **fields})


@pytest.mark.slow
def test_the_first_key_is_made_listed_and_revoked_with_nothing_but_a_store(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, config: Path
) -> None:
    place = ["-c", str(config), "--data", str(tmp_path / "data")]
    options = ["--tenant", "ops", "--scope", "operator", "--scope", "metrics", "--model", "a", "--rpm", "5", "--note", "[red]first[/]"]
    status, key, said = outcome(capsys, "keys", "create", *options, *place)
    assert (status, said.count("\n"), key.strip() in said) == (0, 1, False)
    item = f"key_{keys.digest(key.strip())[:16]}"
    assert said.startswith(f"{item} of ops")
    record = stored(tmp_path / "data")[item]
    assert record is not None
    assert (record.scopes, record.models, record.rpm, record.note) == (["operator", "metrics"], ["a"], 5, "[red]first[/]")
    status, shown, _ = outcome(capsys, "keys", "list", *place)
    assert (status, item[:8] in shown, key.strip() in shown) == (0, True, False)
    assert outcome(capsys, "keys", "revoke", item, *place)[:2] == (0, f"{item} is revoked\n")
    assert outcome(capsys, "keys", "revoke", item, *place)[0] == 1
    assert stored(tmp_path / "data") == {}
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file() and key.strip().encode() in path.read_bytes()]
    assert (tmp_path / "data").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("argv", [["list"], ["create", "--tenant", "t", "--scope", "infer"], ["revoke", "key_1"]])
def test_a_store_or_a_gateway_that_is_away_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path, argv: list[str]) -> None:
    away = tmp_path / "away.yaml"
    away.write_text(json.dumps({"store": {"url": f"unix://{tmp_path}/nobody.sock"}}))
    for place in (["-c", str(away)], []):
        status, out, err = outcome(capsys, "keys", *argv, *place, "--data", str(tmp_path))
        assert (status, out, err.count("\n"), err.startswith("ratchet: ")) == (1, "", 1, True), err


@pytest.mark.parametrize(
    "argv", [["create"], ["create", "--tenant", "t"], ["create", "--tenant", "t", "--scope", "x"], ["revoke", "rk/../x"]]
)
def test_a_wrong_command_line_is_status_2(capsys: pytest.CaptureFixture[str], tmp_path: Path, argv: list[str]) -> None:
    status, out, err = outcome(capsys, "keys", *argv, "--data", str(tmp_path))
    assert (status, out, err.count("\n")) == (2, "", 1), err


def test_a_cell_shows_what_is_bound_and_nothing_else() -> None:
    assert [cell(value) for value in (None, 0, 5, ["a", "b"], "x")] == ["", "0", "5", "a, b", "x"]
