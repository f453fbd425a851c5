"""The configuration: what is refused, what overrides what, what is filled in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ratchet.config import BUILT_IN, Config, load, schema
from ratchet.errors import ConfigError


def written(folder: Path, tree: Any) -> Path:
    path = folder / "ratchet.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def refusal(folder: Path, tree: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(written(folder, tree), {})
    return str(caught.value)


def with_policy(**policy: Any) -> dict[str, Any]:
    return {**BUILT_IN, "policies": {"support": {"base": "smollm2", **policy}}}


def with_launch(**launch: Any) -> dict[str, Any]:
    return {**BUILT_IN, "engines": [{"name": "local", "kind": "vllm", "model": "smollm2", "launch": launch}]}


def test_the_built_in_configuration_is_the_contracts() -> None:
    config = load(None, {})
    assert list(config.models) == ["smollm2"]
    assert list(config.policies) == ["assistant"]
    assert config.store.url == "embedded"
    assert [(e.name, e.kind, e.url) for e in config.engines] == [("local", "vllm", None)]
    assert (config.gateway.host, config.gateway.port, config.gateway.admin_port, config.gateway.drain_seconds) == (
        "127.0.0.1",
        8080,
        8081,
        20,
    )


@pytest.mark.parametrize(
    ("tree", "place", "suggestion"),
    [
        ({"gatewya": {}}, "gatewya", "gateway"),
        ({"gateway": {"prot": 1}}, "gateway.prot", "port"),
        (with_policy(schedule={"min_group": 1}), "policies.support.schedule.min_group", "min_groups"),
        (with_launch(max_lora=4), "engines.0.launch.max_lora", "max_loras"),
    ],
)
def test_an_unknown_key_is_refused_with_its_path_and_the_nearest_one(
    tmp_path: Path, tree: dict[str, Any], place: str, suggestion: str
) -> None:
    said = refusal(tmp_path, tree)
    assert f"{place}: unknown key; did you mean '{suggestion}'?" in said
    assert str(tmp_path) in said


@pytest.mark.parametrize("url", ["shared", "./shared", "../shared"])
def test_a_shared_folder_is_relative_to_the_file(tmp_path: Path, url: str) -> None:
    config = load(written(tmp_path, {"artifacts": {"url": url}}), {})
    assert config.artifacts.folder == tmp_path / url
    assert load(written(tmp_path / "..", config.model_dump(mode="json")), {}) == config


def test_a_shared_folder_may_be_a_file_url_or_come_from_the_environment(tmp_path: Path) -> None:
    assert load(None, {}).artifacts.folder is None
    assert load(written(tmp_path, {"artifacts": {"url": "file:///mnt/ratchet"}}), {}).artifacts.folder == Path("/mnt/ratchet")
    assert load(None, {"RATCHET_ARTIFACTS__URL": "/mnt/other"}).artifacts.folder == Path("/mnt/other")


@pytest.mark.parametrize("url", ["s3://bucket/ratchet", "http://10.0.0.5/x", "", "file://"])
def test_a_shared_folder_of_another_kind_is_refused(tmp_path: Path, url: str) -> None:
    assert "artifacts.url: a folder that several machines share" in refusal(tmp_path, {"artifacts": {"url": url}})


def test_each_fault_has_its_line(tmp_path: Path) -> None:
    assert len(refusal(tmp_path, {"gateway": {"port": -1, "limits": {"max_n": 0}, "colour": 1}}).splitlines()) == 3


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        (with_policy(canary={"share": 0.1}), "canary: is not built yet"),
        (with_policy(algorithm={"type": "dapo"}), "'dapo' is not built yet"),
        ({**BUILT_IN, "engines": [{"name": "s", "kind": "sglang", "model": "smollm2", "url": "http://h"}]}, "'sglang' is not built yet"),
    ],
)
def test_what_is_not_built_is_refused_as_that(tmp_path: Path, tree: dict[str, Any], said: str) -> None:
    assert said in refusal(tmp_path, tree)


def test_an_engine_needs_room_for_every_version_of_its_policies(tmp_path: Path) -> None:
    assert "its policies need 6" in refusal(tmp_path, {**with_launch(max_loras=5), "policies": {"a": {"base": "smollm2"}}})
    assert load(written(tmp_path, {**with_launch(max_loras=6), "policies": {"a": {"base": "smollm2"}}}), {}).policies


def test_an_adapter_larger_than_its_engine_takes_is_refused(tmp_path: Path) -> None:
    assert "max_lora_rank (16)" in refusal(tmp_path, with_policy(lora={"rank": 32}))


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({**BUILT_IN, "engines": [*BUILT_IN["engines"] * 2]}, "'local' is used twice"),
        ({**BUILT_IN, "policies": {"a": {"base": "other"}}}, "no model named 'other'"),
        ({**BUILT_IN, "policies": {"smollm2": {"base": "smollm2"}}}, "a model has that name too"),
        ({**BUILT_IN, "policies": {"../etc": {"base": "smollm2"}}}, "a name is 1-63"),
        ({**BUILT_IN, "engines": [{"name": "e", "kind": "vllm", "model": "smollm2"}]}, "either `launch`"),
        (with_policy(algorithm={"metric": "thumbs"}), "'thumbs' is not in its metrics"),
        (with_policy(gate={"heldout": "x.jsonl"}), "needs `rewards`"),
        (with_policy(metrics={"reward": {"type": "float", "min": 2, "max": 1}}), "min is above max"),
        ([1, 2], "the top level must be a mapping"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path: Path, tree: Any, said: str) -> None:
    assert said in refusal(tmp_path, tree)


def test_a_file_that_is_not_there_or_not_yaml_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "none.yaml", {})
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1\nb: }")
    with pytest.raises(ConfigError, match=r"^[^\n]*not YAML[^\n]*$"):
        load(broken, {})


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    environ = {"RATCHET_GATEWAY__PORT": "0", "RATCHET_ENGINES__0__LAUNCH__MAX_LORAS": "9", "RATCHET_STORE__URL": "redis://h:1/0"}
    config = load(written(tmp_path, {**BUILT_IN, "gateway": {"port": 1}}), environ)
    assert config.gateway.port == 0
    assert config.engines[0].launch is not None
    assert config.engines[0].launch.max_loras == 9
    assert config.store.url == "redis://h:1/0"


def test_variables_of_other_programs_are_ignored() -> None:
    assert load(None, {"RATCHET_ADMIN_URL": "x", "RATCHET_DATA": "y", "PORT": "1"}) == load(None, {})


@pytest.mark.parametrize(
    ("key", "said"), [("RATCHET_GATEWAY__PROT", "did you mean 'port'"), ("RATCHET_ENGINES__7__NAME", "no position in the list")]
)
def test_a_wrong_override_is_an_error(key: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(None, {key: "1"})


def test_relative_paths_in_a_file_are_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    tree = with_policy(gate={"heldout": "gate.jsonl"}, rewards=[{"type": "python", "path": "mine:score"}])
    config = load(written(tmp_path, {**tree, "models": {"smollm2": {"path": "tiny"}, "hub": {"path": "owner/name"}}}), {})
    assert config.models["smollm2"].path == str(tmp_path / "tiny")
    assert config.models["hub"].path == "owner/name"
    assert config.policies["support"].gate.heldout == str(tmp_path / "gate.jsonl")


def test_what_is_written_out_reads_back_the_same(tmp_path: Path) -> None:
    config = load(None, {})
    assert load(written(tmp_path, config.model_dump(mode="json")), {}) == config


def test_the_schema_describes_every_section() -> None:
    described = schema()
    assert set(described["properties"]) == set(Config.model_fields)
    assert described["additionalProperties"] is False
    assert "free port" in described["$defs"]["GatewayConfig"]["properties"]["port"]["description"]


def test_what_all_bodies_may_take_must_hold_one_of_each_kind(tmp_path: Path) -> None:
    assert "max_bodies_bytes" in refusal(tmp_path, {"gateway": {"limits": {"max_bodies_bytes": 2**20, "max_body_bytes": 2**21}}})
