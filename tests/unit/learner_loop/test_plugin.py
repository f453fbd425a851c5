"""The algorithm that docs/learner.md shows: installed as a package, chosen in the YAML, it learns from answers rated one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from learner.policy import checkpoint
from learner.policy.trainer import Trainer
from ratchet.adapters import ArtifactStore
from ratchet.buffer import Store
from ratchet.config import ALGORITHMS, Config, load
from ratchet.types import Example, Interaction, PolicyVersionRecord, Signal
from tests.support.learner_setup import ROOT, World, configuration, world
from tests.support.stores import POLICY, rate

SOURCE = ROOT / "tests" / "support" / "ema_reinforce.py"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with the plug-in, as pip would install it."""
    place = tmp_path / "site-packages"
    (place / "ema_reinforce-1.0.dist-info").mkdir(parents=True)
    (place / "ema_reinforce.py").write_bytes(SOURCE.read_bytes())
    described = {
        "METADATA": "Metadata-Version: 2.1\nName: ema-reinforce\nVersion: 1.0\n",
        "entry_points.txt": "[ratchet.algorithms]\nema_reinforce = ema_reinforce:EmaReinforceConfig\n",
    }
    for name, text in described.items():
        (place / "ema_reinforce-1.0.dist-info" / name).write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(place)
    monkeypatch.setattr(ALGORITHMS, "_declared", None)
    monkeypatch.setattr(ALGORITHMS, "_models", dict(ALGORITHMS._models))


def chosen(model: Path, url: str, folder: Path, **algorithm: Any) -> Config:
    """The configuration of a YAML whose policy names the plug-in."""
    tree = configuration(model, url, schedule={"min_groups": 3}).model_dump(mode="json")
    tree["policies"][POLICY]["algorithm"] = {"type": "ema_reinforce", **algorithm}
    path = folder / "ratchet.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return load(path, {})


async def rated(w: World, prompt: str, reward: float) -> Interaction:
    """One answer with a reward of its own."""
    item = await w.ask(prompt, 1, version=await w.live())
    await rate(w.store, item, [reward])
    return item


def lone(item: Interaction, reward: float) -> Example:
    return Example(f"{item.id}:0:reward", "lone", [item], [Signal(item.id, 0, "reward", reward)])


async def state(w: World, version: int) -> dict[str, Any]:
    found = await w.store.registry.version(POLICY, version)
    assert found is not None and found.state == "live", found
    return checkpoint.load(ArtifactStore(w.data), POLICY, found.checkpoint).algorithm


@pytest.mark.usefixtures("installed")
async def test_it_learns_from_lone_rewards_and_its_state_goes_from_step_to_step(
    store: Store, model: Path, url: str, tmp_path: Path
) -> None:
    config = chosen(model, url, tmp_path, rate=0.5, learning_rate=0.01)
    async with world(store, tmp_path, config) as w:
        for prompt, reward in (("one", 0.0), ("two", 1.0), ("three", 2.0)):
            await rated(w, prompt, reward)
        assert await w.loop.cycle()
        assert await state(w, 1) == {"baseline": 1.0}
        later = [(await rated(w, prompt, reward), reward) for prompt, reward in (("four", 3.0), ("five", 4.0), ("six", 2.0))]
        assert await w.loop.cycle()
        assert await state(w, 2) == {"baseline": 2.0}
        ledger = await store.feedback.ledger()
        assert ledger.balances and ledger.used == ledger.received == 6
        assert await replayed(w, [lone(*pair) for pair in later], {"baseline": 1.0}) == (await bytes_of(w, 2))
        assert await replayed(w, [lone(*pair) for pair in later], {}) != (await bytes_of(w, 2)), "the state decides"


async def bytes_of(w: World, version: int) -> dict[str, bytes]:
    found = await w.store.registry.version(POLICY, version)
    assert found is not None
    return {path.name: path.read_bytes() for path in (w.data / found.path).iterdir()}


async def replayed(w: World, examples: list[Example], expected: dict[str, Any]) -> dict[str, bytes]:
    """What version 1 learns from `examples` again, in a trainer of its own that begins with the algorithm's state `expected`."""
    parts = w.loop.parts
    fresh = Trainer(
        POLICY,
        parts.config,
        model_path=w.config.models[parts.config.base].path,
        artifacts=parts.artifacts,
        learner=w.config.learner,
        worker=w.worker,
    )
    first: PolicyVersionRecord | None = await w.store.registry.version(POLICY, 1)
    assert first is not None
    await fresh.at(first)
    fresh._state = fresh._state if expected else {}
    assert fresh._state == expected
    await fresh.update(sorted(examples, key=lambda example: example.id), lambda done, total: None)
    return await fresh.adapter_files()


@pytest.mark.usefixtures("installed")
async def test_a_policy_that_takes_no_groups_samples_none(store: Store, model: Path, url: str, tmp_path: Path) -> None:
    config = chosen(model, url, tmp_path)
    async with world(store, tmp_path, config) as w:
        assert not w.loop.parts.shadow.enabled
        await w.learnable("a group is none of its business")
        assert not await w.loop.cycle()
        assert await store.experience.ready(POLICY, ["group"]) == 1


def test_the_documentation_shows_this_very_file() -> None:
    source = SOURCE.read_text(encoding="utf-8")
    assert len(source.splitlines()) < 60
    assert f"```python\n{source}```" in (ROOT / "docs" / "learner.md").read_text(encoding="utf-8")
