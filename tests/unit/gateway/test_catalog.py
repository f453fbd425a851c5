"""gateway.catalog: what a model's name means."""

from __future__ import annotations

import pytest

from gateway.catalog import Catalog, Target
from gateway.errors import ApiError
from ratchet.config import Config
from ratchet.types import PolicyVersionRecord


@pytest.fixture
def catalog() -> Catalog:
    return Catalog(
        Config.model_validate(
            {
                "models": {"small": {"path": "smollm2"}},
                "policies": {
                    "support": {"base": "small", "metrics": {"reward": {"type": "float", "max": 1}, "liked": {"type": "boolean"}}},
                    "sales": {"base": "small"},
                },
            }
        )
    )


def version(number: int) -> PolicyVersionRecord:
    return PolicyVersionRecord("support", number, "live", 5.0)


def test_a_base_is_itself(catalog: Catalog) -> None:
    target = catalog.resolve("small")
    assert target == Target("small")
    assert (target.adapter, target.label, target.model, target.owner) == (None, "base", "small", "small")


def test_a_policy_is_its_live_version_and_version_zero_is_the_base(catalog: Catalog) -> None:
    first = catalog.resolve("support")
    assert (first.adapter, first.label, first.model, first.owner) == (None, "support@0", "support@0", "support")
    assert catalog.move("support", 3, 1)
    later = catalog.resolve("support")
    assert (later.adapter, later.label, later.model) == ("support@3", "support@3", "support@3")
    assert catalog.resolve("sales").version == 0


def test_news_that_comes_late_moves_nothing(catalog: Catalog) -> None:
    assert catalog.move("support", 3, 5)
    assert not catalog.move("support", 2, 4)
    assert not catalog.move("support", 2, 5)
    assert catalog.resolve("support").version == 3
    assert catalog.epochs == {"support": 5, "sales": 0}


def test_only_zero_the_live_and_the_retained_may_be_pinned(catalog: Catalog) -> None:
    catalog.retain("support", [version(2), version(1)])
    catalog.move("support", 3, 1)
    assert [catalog.resolve(f"support@{v}").version for v in (0, 1, 2, 3)] == [0, 1, 2, 3]
    for name in ("support@4", "support@01", "sales@1", "small@0", "nobody", "nobody@0", "support@", "@1", "support@1@2", "s" * 1000):
        with pytest.raises(ApiError) as error:
            catalog.resolve(name)
        assert (error.value.status, error.value.code, error.value.param) == (404, "model_not_found", "model")
        assert len(str(error.value)) < 200


def test_models_lists_what_may_be_asked_for(catalog: Catalog) -> None:
    catalog.retain("support", [version(2), version(1)])
    ids = [model.id for model in catalog.models()]
    assert ids == ["small", "support", "support@0", "support@1", "support@2", "sales", "sales@0"]
    assert all(catalog.resolve(name) for name in ids)


def test_metrics_are_the_policys_own_and_a_base_has_the_reward(catalog: Catalog) -> None:
    assert set(catalog.metrics("support")) == {"reward", "liked"}
    assert set(catalog.metrics("small")) == {"reward"}
    assert len(catalog.declarations("reward")) == 2
    assert len(catalog.declarations("liked")) == 1
    assert catalog.declarations("unheard") == []
    assert catalog.metric("support") == catalog.metric("small") == "reward"
