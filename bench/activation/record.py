"""What a real vLLM says of adapters' tokens, for the activation proof.

    python -m bench.activation.record ADAPTERS OUT --dtype float32|bfloat16

For the base and each version of `bench.activation.train`'s lineages: answers drawn under its name (T = 1) and their log-probs,
as the prover asks for them. (Asking for log-probs of given tokens, `prompt_logprobs`, ends vLLM 0.32's CPU build once an adapter
is loaded.) One JSON file a version,
`OUT/DTYPE/LINEAGE-VERSION.json`, written when it is complete; what is there already is not asked for again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import transformers

from bench import learn_task
from bench.activation.train import LINEAGES, VERSIONS, place
from bench.gateways.target import child
from engines import EngineControl, connect
from engines.base import Machine
from engines.launch import build
from engines.vllm.config import VllmLaunch
from learner.gate.proof import PROBES
from ratchet import process
from ratchet.clock import monotonic
from ratchet.config import EngineConfig
from ratchet.errors import EngineUnavailable
from ratchet.models import resolve
from ratchet.types import EngineRecord

MODEL = "smollm2"
ANSWERS, TOKENS = 2, 16
"""For each prompt, and for each answer."""
START_SECONDS = 300.0
CHATS = [[{"role": "user", "content": text}] for text in PROBES] + [
    [{"role": "system", "content": "Be excited!"}, {"role": "user", "content": f"Tell me about {topic}."}]
    for topic in learn_task.HELD_OUT[:16]
]
"""The prompts: the prover's own and the task's held-out ones."""


async def record(engine: EngineControl, prompts: list[list[int]], model: str) -> list[dict[str, Any]]:
    """One entry an answer: prompt ids, answer ids, and the engine's log-probs (nats) as drawn."""

    async def one(index: int, prompt: list[int]) -> list[dict[str, Any]]:
        samples = await engine.generate(model, prompt, n=ANSWERS, max_tokens=TOKENS, seed=index)
        return [{"prompt": prompt, "answer": sample.token_ids, "engine": sample.logprobs} for sample in samples]

    return [answer for answers in await asyncio.gather(*(one(i, prompt) for i, prompt in enumerate(prompts))) for answer in answers]


def encoded() -> list[list[int]]:
    """The prompts' ids, by the model's own template."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(resolve(MODEL))
    return [tokenizer.encode(tokenizer.apply_chat_template(c, add_generation_prompt=True, tokenize=False)) for c in CHATS]


async def record_all(engine: EngineControl, prompts: list[list[int]], adapters: Path, out: Path) -> None:
    """The base and every lineage that has no file yet."""
    await save(out / "base.json", record(engine, prompts, MODEL))
    for seed, rate in LINEAGES:
        for version in range(1, VERSIONS + 1):
            name = f"{seed}-{rate:g}@{version}"
            await engine.load(name, place(adapters, seed, rate, version))
            await save(out / f"{name}.json", record(engine, prompts, name))
            await engine.unload(name)


async def save(path: Path, answers: Coroutine[Any, Any, list[dict[str, Any]]]) -> None:
    """Asks and writes, unless `path` is there already."""
    began = monotonic()
    if await asyncio.to_thread(path.exists):
        answers.close()
        return
    found = await answers
    await asyncio.to_thread(_write, path, found)
    print(f"{path}: {sum(len(a['answer']) for a in found)} tokens in {monotonic() - began:.1f} s", flush=True)


def _write(path: Path, found: list[dict[str, Any]]) -> None:
    path.with_suffix(".tmp").write_text(json.dumps(found))
    path.with_suffix(".tmp").rename(path)


async def run(adapters: Path, out: Path, dtype: str) -> None:
    prompts = encoded()
    launch = VllmLaunch(max_loras=4, max_lora_rank=8, max_model_len=256, max_num_seqs=32, kv_cache_gib=1, dtype=dtype)
    config = EngineConfig(name="probed", kind="vllm", model=MODEL, launch=launch)
    machine = Machine(gpu=False, cpus=tuple(sorted(os.sched_getaffinity(0))))
    planned = build(config, resolve(MODEL), process.free_port(), machine=machine, environ=os.environ)
    (out / dtype).mkdir(parents=True, exist_ok=True)
    async with child(planned.argv, out / f"{dtype}.log", "vllm", planned.env):
        engine = connect(EngineRecord("probed", "vllm", MODEL, planned.url, MODEL))
        await started(engine)
        await record_all(engine, prompts, adapters, out / dtype)
        await engine.close()


async def started(engine: EngineControl) -> None:
    deadline = monotonic() + START_SECONDS
    while True:
        try:
            await engine.models()
            await engine.health()
            return
        except EngineUnavailable:
            if monotonic() > deadline:
                raise
        await asyncio.sleep(0.5)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("adapters", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--dtype", default="float32")
    args = parser.parse_args()
    began = time.time()
    asyncio.run(run(args.adapters.resolve(), args.out.resolve(), args.dtype))
    print(f"{time.time() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
