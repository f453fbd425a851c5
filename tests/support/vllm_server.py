"""One real vLLM for a whole test session, and adapters for it. Import the fixture `real_engine` into a test module
and name it as an argument of the test (or of a session fixture), so that it is there before the test begins:

from tests.support.vllm_server import real_engine  # noqa: F401

However many modules import it, one server is started; tests that use it are marked `real`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections import deque
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from engines.launch import Launch, Machine, build
from engines.vllm.config import VllmLaunch
from ratchet.clock import monotonic
from ratchet.config import EngineConfig
from ratchet.models import resolve
from ratchet.process import _exec, free_port
from ratchet.types import EngineRecord

BASE = "smollm2"
LAUNCH = VllmLaunch(max_loras=6, max_lora_rank=8, max_model_len=1024, max_num_seqs=16, kv_cache_gib=1)
START_SECONDS = 240
LINEARS = {  # SmolLM2-135M: (inputs, outputs) of each linear layer
    "self_attn.q_proj": (576, 576),
    "self_attn.k_proj": (576, 192),
    "self_attn.v_proj": (576, 192),
    "self_attn.o_proj": (576, 576),
    "mlp.gate_proj": (576, 1536),
    "mlp.up_proj": (576, 1536),
    "mlp.down_proj": (1536, 576),
}
LAYERS = 30


@pytest.fixture(scope="session")
def real_engine() -> Iterator[EngineRecord]:
    """A vLLM server with SmolLM2 as `smollm2`, LoRA on, a first generation done."""
    server = _server()
    yield server.record
    server.stop()


def write_adapter(folder: Path, seed: int, *, rank: int = 8, scale: float = 0.02) -> Path:
    """A random PEFT adapter over all linear layers of SmolLM2, strong enough at the default `scale` to change answers."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    tensors = {}
    for layer in range(LAYERS):
        for name, (inputs, outputs) in LINEARS.items():
            key = f"base_model.model.model.layers.{layer}.{name}"
            tensors[f"{key}.lora_A.weight"] = (random.standard_normal((rank, inputs)) * scale).astype(np.float32)
            tensors[f"{key}.lora_B.weight"] = (random.standard_normal((outputs, rank)) * scale).astype(np.float32)
    save_file(tensors, folder / "adapter_model.safetensors")
    targets = [name.split(".")[1] for name in LINEARS]
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": BASE, "r": rank, "lora_alpha": 2 * rank}
    (folder / "adapter_config.json").write_text(json.dumps({**config, "target_modules": targets, "bias": "none", "lora_dropout": 0.0}))
    return folder


class Server:
    """A vLLM server. `first` is a path and a body: what it answers once before it counts as started."""

    def __init__(self, launch: Launch, record: EngineRecord, first: tuple[str, dict[str, Any]]) -> None:
        shim = [sys.executable, "-I", "-S", _exec.__file__, str(os.getpid())]  # dies with the test session
        self._lines: deque[str] = deque(maxlen=60)
        self._listening, self._ended = Event(), Event()
        self._process = subprocess.Popen(
            [*shim, *launch.argv], env=launch.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()
        self.record = record
        try:
            self._answer_once(*first)
        except BaseException:
            self.stop()
            raise

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(line.decode(errors="replace"))
            if b"Application startup complete" in line:
                self._listening.set()
        self._ended.set()
        self._listening.set()

    def _answer_once(self, path: str, body: dict[str, Any]) -> None:
        if not self._listening.wait(START_SECONDS) or self._ended.is_set():
            raise AssertionError("vLLM did not start:\n" + "".join(self._lines))
        request = urllib.request.Request(self.record.url + path, json.dumps(body).encode(), {"content-type": "application/json"})
        # It says that it is up a moment before it listens.
        deadline = monotonic() + START_SECONDS
        while True:
            try:
                with urllib.request.urlopen(request, timeout=START_SECONDS):
                    return
            except OSError:
                if self._ended.wait(0.05) or monotonic() > deadline:
                    raise

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait(20)
        self._reader.join(20)
        if self._process.stdout is not None:
            self._process.stdout.close()


@cache
def _server() -> Server:
    config = EngineConfig(name="real", kind="vllm", model=BASE, launch=LAUNCH)
    machine = Machine(gpu=False, cpus=tuple(sorted(os.sched_getaffinity(0))))
    launch = build(config, resolve(BASE), free_port(), machine=machine, environ=os.environ)
    record = EngineRecord("real", "vllm", BASE, launch.url, BASE, launched=True, slots=LAUNCH.max_num_seqs)
    hello = {"model": BASE, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, "logprobs": True}
    return Server(launch, record, ("/v1/chat/completions", hello))
