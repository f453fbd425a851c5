"""ratchet.config.registry: engines and algorithms that installed packages bring, chosen by name in the YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from ratchet.config import ALGORITHMS, BUILT_IN, AlgorithmConfig, Config, load, schema
from ratchet.config.registry import Registry
from ratchet.errors import ConfigError

MODULE = """
from typing import Literal
from ratchet.config import AlgorithmConfig

class OursConfig(AlgorithmConfig):
    type: Literal["ours"] = "ours"
    strength: int = 3

    def make(self):
        return "ours"
"""


def installed(folder: Path, *entries: str) -> Registry[AlgorithmConfig]:
    """A registry that sees a package in `folder`, which declares `entries`."""
    (folder / "plugged_in.py").write_text(MODULE)
    (folder / "plugged_in-1.0.dist-info").mkdir()
    (folder / "plugged_in-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged-in\nVersion: 1.0\n")
    declared = "[ratchet.algorithms]\n" + "\n".join(entries) + "\n"
    (folder / "plugged_in-1.0.dist-info" / "entry_points.txt").write_text(declared)
    return Registry("ratchet.algorithms", AlgorithmConfig)


def written(folder: Path, **policy: Any) -> Path:
    path = folder / "ratchet.yaml"
    path.write_text(yaml.safe_dump({**BUILT_IN, "policies": {"support": {"base": "smollm2", **policy}}}))
    return path


def test_the_built_in_algorithms_and_engines_are_found_by_their_entry_points() -> None:
    assert {"grpo", "dr_grpo"} <= set(ALGORITHMS.names())
    assert ALGORITHMS.model("grpo").__name__ == "GrpoConfig"


def test_an_installed_package_brings_an_algorithm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    found = installed(tmp_path, "ours = plugged_in:OursConfig")
    assert "ours" in found.names()
    assert found.model("ours").model_validate({"strength": 4}).model_dump()["strength"] == 4


@pytest.mark.parametrize(
    ("entry", "said"),
    [("lost = no_such_module:X", "cannot be imported"), ("lost = plugged_in:Absent", "cannot be imported"), ("lost = json:dumps", "is no")],
)
def test_a_plug_in_that_cannot_be_used_is_one_line(entry: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=said):
        installed(tmp_path, entry).model("lost")


def test_a_registered_algorithm_is_chosen_by_its_type_with_its_own_keys(tmp_path: Path) -> None:
    class OwnConfig(AlgorithmConfig):
        type: Literal["own"] = "own"
        strength: int = 3

        def make(self) -> str:
            return "own"

    ALGORITHMS.register("own", OwnConfig)
    try:
        config = load(written(tmp_path, algorithm={"type": "own", "strength": 5}), {})
        assert config.policies["support"].algorithm == OwnConfig(strength=5)
        again = Config.model_validate(config.model_dump(mode="json"))
        assert again.policies["support"].algorithm == OwnConfig(strength=5)
        with pytest.raises(ConfigError, match=r"algorithm\.strenght: unknown key; did you mean 'strength'"):
            load(written(tmp_path, algorithm={"type": "own", "strenght": 5}), {})
    finally:
        ALGORITHMS.unregister("own")


@pytest.mark.parametrize(
    ("kind", "said"), [("sglang", "'sglang' is not built yet; use one of"), ("vlm", "'vlm' is unknown; use one of 'fake', 'vllm'")]
)
def test_a_kind_that_is_not_there_is_refused_with_those_that_are(kind: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "ratchet.yaml"
    path.write_text(yaml.safe_dump({**BUILT_IN, "engines": [{"name": "a", "kind": kind, "model": "smollm2", "launch": {"max_loras": 7}}]}))
    with pytest.raises(ConfigError, match=said) as caught:
        load(path, {})
    assert len(str(caught.value).splitlines()) == 1


def test_a_key_of_another_kind_of_engine_is_refused_with_its_path(tmp_path: Path) -> None:
    path = tmp_path / "ratchet.yaml"
    launch = {"kind": "vllm", "name": "a", "model": "smollm2", "launch": {"tensor_paralel": 2}}
    path.write_text(yaml.safe_dump({**BUILT_IN, "engines": [launch]}))
    with pytest.raises(ConfigError, match=r"engines\.0\.launch\.tensor_paralel: unknown key; did you mean 'tensor_parallel'"):
        load(path, {})


def test_the_schema_defines_each_kind_once() -> None:
    described = schema()["$defs"]
    assert {"GrpoConfig", "DrGrpoConfig", "VllmLaunch", "FakeLaunch"} <= set(described)
    options = described["PolicyConfig"]["properties"]["algorithm"]["anyOf"]
    assert {"$ref": "#/$defs/GrpoConfig"} in options
