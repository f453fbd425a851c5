from __future__ import annotations

from pathlib import Path

import pytest

from learner.policy.model import Policy
from tests.unit.learner import tiny_policy


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_policy.save_base(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture
def policy(base: Path) -> Policy:
    return tiny_policy.load(base)
