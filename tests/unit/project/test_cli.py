"""The command line: what each command says, and how it fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from ratchet.cli import options, policies, train
from ratchet.cli.admin import checked
from ratchet.cli.app import app, run
from ratchet.errors import ConfigError
from ratchet.process import free_port

COMMANDS = ["up", "gateway", "learner", "engine", "demo", "doctor", "train", "policies", "promote", "rollback", "eval", "export"]
GROUPS = {"config": ["schema", "check", "show"], "data": ["import", "export", "erase"], "keys": ["create", "list", "revoke"]}
VERSION: dict[str, Any] = {
    "version": 2,
    "state": "live",
    "parent": 1,
    "step": 2,
    "reward": 0.5,
    "kl": 0.25,
    "verdict": {
        "passed": True,
        "heldout": {"n": 4, "live": 0.25, "candidate": 0.75},
        "proof": [{"replica": "a", "max_abs_logprob_diff": 0.001}, {"replica": "b", "max_abs_logprob_diff": 0.002}],
    },
}
REFUSED: dict[str, Any] = {
    "version": 3,
    "state": "refused",
    "parent": 2,
    "verdict": {"passed": False, "gate": "heldout", "why": "0.2 lower"},
}


def outcome(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    status = run(argv)
    out, err = capsys.readouterr()
    return status, out, err


def one_line(said: str) -> bool:
    return said.startswith("ratchet: ") and said.count("\n") == 1 and "Traceback" not in said


@pytest.mark.parametrize("argv", [[name] for name in COMMANDS] + [[group, verb] for group, verbs in GROUPS.items() for verb in verbs])
def test_every_command_of_the_contract_explains_itself(capsys: pytest.CaptureFixture[str], argv: list[str]) -> None:
    status, out, err = outcome(capsys, *argv, "--help")
    assert (status, err) == (0, "")
    assert out.startswith(f"Usage: ratchet {' '.join(argv)}")


def test_the_top_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = outcome(capsys, "--help")
    assert status == 0
    assert {*COMMANDS, *GROUPS} <= set(out.split())
    assert app.info.name == "ratchet"


@pytest.mark.parametrize(
    "argv",
    [["bogus"], ["up", "--bogus"], ["train"], ["promote", "a"], ["promote", "a", "-1"], ["promote", "a", "x"], ["demo", "--seed", "-1"]],
)
def test_a_wrong_command_line_is_status_2_and_one_line(capsys: pytest.CaptureFixture[str], argv: list[str]) -> None:
    status, _, err = outcome(capsys, *argv)
    assert (status, one_line(err)) == (2, True), err


@pytest.mark.parametrize("argv", [["eval", "a@1"], ["export", "a", "--format", "gptq"], ["data", "erase", "--user", "x"]])
def test_what_is_not_built_is_status_1_and_says_so(capsys: pytest.CaptureFixture[str], argv: list[str]) -> None:
    status, out, err = outcome(capsys, *argv)
    assert (status, out, one_line(err), "is not built yet" in err) == (1, "", True, True)


def test_a_wrong_configuration_is_status_2_everywhere(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    wrong = tmp_path / "ratchet.yaml"
    wrong.write_text("gatewya: {}\nstorre: {}\n")
    for command in (["up"], ["gateway"], ["learner"], ["engine"]):
        status, _, err = outcome(capsys, *command, "-c", str(wrong), "--data", str(tmp_path / "d"))
        assert (status, one_line(err), "1 more" in err) == (2, True, True)
    status, _, err = outcome(capsys, "config", "check", "-c", str(wrong))
    assert (status, err.count("did you mean")) == (2, 2)


def test_config_prints_schema_verdict_and_what_is_in_force(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert json.loads(outcome(capsys, "config", "schema")[1])["properties"]["gateway"]
    assert outcome(capsys, "config", "check") == (0, "built-in configuration: valid\n", "")
    file = tmp_path / "r.yaml"
    file.write_text(
        "store: {url: 'redis://me:secret@h:1/0'}\nmodels: {m: {path: m}}\n"
        "engines: [{name: e, kind: vllm, model: m, url: 'http://h', api_key: hidden-key}]\n"
    )
    _, out, _ = outcome(capsys, "config", "show", "-c", str(file))
    assert yaml.safe_load(out)["gateway"]["port"] == 8080
    assert "secret" not in out
    assert "hidden-key" not in out


@pytest.mark.parametrize("place", ["", "none/ready.json"])
def test_a_ready_file_that_cannot_be_written_is_an_error_before_anything_starts(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, place: str
) -> None:
    status, _, err = outcome(capsys, "up", "--data", str(tmp_path / "data"), "--ready-file", str(tmp_path / place))
    assert (status, one_line(err), "--ready-file" in err) == (1, True, True)


def test_a_data_directory_that_cannot_be_one_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    status, _, err = outcome(capsys, "learner", "--data", str(tmp_path / "file" / "data"))
    assert (status, one_line(err)) == (1, True)


def test_an_engine_must_be_named_where_there_are_several(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(
        "models: {m: {path: m}}\nengines: [{name: a, kind: fake, model: m, launch: {}}, {name: b, kind: fake, model: m, launch: {}}]\n"
    )
    status, _, err = outcome(capsys, "engine", "-c", str(file), "--data", str(tmp_path))
    assert (status, one_line(err), "a, b" in err) == (2, True, True)


def test_operators_commands_say_what_they_lack(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for command in (["policies"], ["train", "a"], ["promote", "a", "1"], ["rollback", "a"]):
        status, _, err = outcome(capsys, *command, "--data", str(tmp_path))
        assert (status, one_line(err), "no `ratchet up` runs on" in err) == (1, True, True)
    nobody = f"http://127.0.0.1:{free_port()}"
    status, _, err = outcome(capsys, "policies", "--admin", nobody, "--key", "k")
    assert (status, one_line(err), nobody in err) == (1, True, True)
    assert outcome(capsys, "policies", "--admin", nobody, "--key", "a\nb")[0] == 2
    assert outcome(capsys, "train", "../a", "--admin", nobody, "--key", "k")[0] == 2


def test_the_data_directory_is_in_the_users_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert options.data_directory(None) == tmp_path / "ratchet"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert options.data_directory(None) == Path.home() / ".local" / "state" / "ratchet"
    monkeypatch.chdir(tmp_path)
    assert options.data_directory(Path("d")) == tmp_path / "d"


def test_a_version_is_shown_with_its_gate_and_its_worst_replica() -> None:
    assert policies.row(VERSION) == ["2", "live", "1", "2", "0.500", "0.250 -> 0.750", "0.250", "0.0020", "passed"]
    assert policies.row(REFUSED)[-1] == "heldout: 0.2 lower"
    assert policies.row({"version": 0, "state": "retired"}) == ["0", "retired", "", "0", "", "", "", "", ""]


def test_the_table_names_the_policy_and_what_is_live(capsys: pytest.CaptureFixture[str]) -> None:
    Console(width=200).print(policies.table({"name": "support", "base": "m", "live": 2, "versions": [VERSION, REFUSED]}))
    out = capsys.readouterr().out
    assert "support on m, live: support@2" in out
    assert "heldout: 0.2 lower" in out


def test_a_followed_job_ends_with_the_first_version_published_or_refused() -> None:
    policy = {"versions": [{"version": 1, "state": "live"}, {"version": 2, "state": "candidate"}]}
    before = train.versions(policy)
    assert before == {1}
    assert train.decided(policy, before) is None
    policy["versions"] = [{"version": 1, "state": "retired"}, VERSION, REFUSED]
    assert train.decided(policy, before) == VERSION


def test_figures_show_what_is_known_and_nothing_else() -> None:
    assert train.figures({}, 1.0) == ""
    history = [{"seconds": 10.0}, {"seconds": 20.0}, {"seconds": None}]
    said = train.figures({"reward": 0.5, "kl": 0.1, "tokens_per_s": 99.6, "history": history, "why": "3 of 4 groups"}, 5.0)
    assert said == "reward 0.500, KL 0.100, 100 tokens/s, ETA 10 s, 3 of 4 groups"


def test_a_name_that_could_be_a_path_never_reaches_the_api() -> None:
    assert checked("support") == "support"
    with pytest.raises(ConfigError, match="cannot be a policy's name"):
        checked("../admin")
