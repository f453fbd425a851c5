"""Adapters as the gateway sees them: verified, and fetched where this machine has none."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.routing.adapter_cache import AdapterCache
from ratchet.adapters import FILES
from ratchet.config import Config
from ratchet.errors import AdapterError
from tests.support.small_adapters import BASE, POLICY, RANK, written


def config(shared: Path | None = None) -> Config:
    policy = {"base": BASE, "lora": {"rank": RANK}}
    artifacts = {"url": str(shared) if shared else None}
    return Config.model_validate({"models": {BASE: {"path": "x"}}, "policies": {POLICY: policy}, "artifacts": artifacts})


async def test_a_gateway_with_another_data_directory_fetches_the_adapter(tmp_path: Path) -> None:
    shared, elsewhere = tmp_path / "shared", tmp_path / "elsewhere"
    shared.mkdir()
    _, record = written(tmp_path / "here", shared=shared)
    folder = await AdapterCache(config(shared), elsewhere).verified(record)
    assert folder == elsewhere.resolve() / record.path
    assert {path.name for path in folder.iterdir()} == FILES


async def test_with_no_shared_folder_an_adapter_that_is_not_here_is_an_error(tmp_path: Path) -> None:
    _, record = written(tmp_path / "here")
    with pytest.raises(AdapterError, match="cannot be read"):
        await AdapterCache(config(), tmp_path / "elsewhere").verified(record)
