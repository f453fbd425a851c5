"""A small real engine: vLLM's HTTP routes over plain transformers and PEFT, for tests that kill the learner many times.

It shares no code with the learner: log-probs come from a plain forward of one sequence at a time, so that the activation
proof proves something. `--serve-base` makes it the liar the proof exists for: any adapter's name is served by the base.

    python -m tests.support.tiny_engine --model DIR --port P [--serve-base]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
from typing import Any

import peft
import torch
import transformers
from aiohttp import web
from torch import Tensor

from ratchet import process
from tests.support.tiny_model import NAME


class TinyEngine:
    """One model, its adapters by name, one generation at a time."""

    def __init__(self, folder: str, *, serve_base: bool) -> None:
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self._model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self._base = self._model
        self._paths: dict[str, str] = {}
        self._slots: dict[str, str] = {}
        self._serve_base = serve_base
        self._turn = asyncio.Lock()
        self._count = itertools.count()

    def app(self) -> web.Application:
        app = web.Application()
        app.add_routes(
            [
                web.get("/v1/models", self.models),
                web.get("/metrics", self.metrics),
                web.post("/v1/completions", self.completions),
                web.post("/v1/chat/completions", self.chat),
                web.post("/v1/load_lora_adapter", self.load),
                web.post("/v1/unload_lora_adapter", self.unload),
            ]
        )
        return app

    async def models(self, request: web.Request) -> web.Response:
        cards = [{"id": NAME, "root": NAME, "parent": None}]
        return web.json_response({"data": cards + [{"id": n, "root": p, "parent": NAME} for n, p in self._paths.items()]})

    async def metrics(self, request: web.Request) -> web.Response:
        return web.Response(text='vllm:num_requests_running{engine="0"} 0.0\nvllm:num_requests_waiting{engine="0"} 0.0\n')

    async def load(self, request: web.Request) -> web.Response:
        body = await request.json()
        name, path = body["lora_name"], body["lora_path"]
        if name in self._paths:
            return refusal(400, f"{name} is loaded already")
        async with self._turn:
            slot = f"slot{next(self._count)}"
            if isinstance(self._model, peft.PeftModel):
                self._model.load_adapter(path, adapter_name=slot)
            else:
                self._model = peft.PeftModel.from_pretrained(self._base, path, adapter_name=slot).eval()
        self._paths[name], self._slots[name] = path, slot
        return web.Response(text="Success")

    async def unload(self, request: web.Request) -> web.Response:
        name = (await request.json())["lora_name"]
        if self._paths.pop(name, None) is None:
            return refusal(404, f"{name} is not loaded")
        return web.Response(text="Success")

    async def chat(self, request: web.Request) -> web.Response:
        """Enough of it for a health check."""
        return web.json_response({"id": "c", "model": NAME, "choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}}]})

    async def completions(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body["model"] != NAME and body["model"] not in self._paths:
            return refusal(404, f"no model {body['model']}")
        async with self._turn:
            choices = await asyncio.to_thread(self._choices, body)
        return web.json_response({"choices": choices})

    def _choices(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        adapted = body["model"] != NAME and not self._serve_base
        if adapted:
            self._model.set_adapter(self._slots[body["model"]])
        if adapted or not isinstance(self._model, peft.PeftModel):
            return [self._choice(body, index) for index in range(body["n"])]
        with self._model.disable_adapter():
            return [self._choice(body, index) for index in range(body["n"])]

    def _choice(self, body: dict[str, Any], index: int) -> dict[str, Any]:
        draw = torch.Generator().manual_seed(body["seed"] + index)
        ids: list[int] = []
        logprobs: list[float] = []
        while len(ids) < body["max_tokens"] and (not ids or ids[-1] != self._tokenizer.eos_token_id):
            row = self._next(body["prompt"] + ids) / body["temperature"]
            ids.append(int(torch.multinomial(row.softmax(-1), 1, generator=draw)))
            logprobs.append(float(row.log_softmax(-1)[ids[-1]]))
        ended = ids[-1] == self._tokenizer.eos_token_id
        return {
            "index": index,
            "text": self._tokenizer.decode(ids, skip_special_tokens=True),
            "token_ids": ids,
            "logprobs": {"token_logprobs": logprobs},
            "finish_reason": "stop" if ended else "length",
        }

    @torch.inference_mode()
    def _next(self, ids: list[int]) -> Tensor:
        logits: Tensor = self._model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
        return logits


def refusal(status: int, message: str) -> web.Response:
    return web.json_response({"error": {"message": message}}, status=status)


def main() -> None:
    process.die_with_parent()
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--model", required=True)
    arguments.add_argument("--port", type=int, required=True)
    arguments.add_argument("--serve-base", action="store_true")
    options = arguments.parse_args()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    torch.set_num_threads(1)
    web.run_app(TinyEngine(options.model, serve_base=options.serve_base).app(), host="127.0.0.1", port=options.port, print=None)


if __name__ == "__main__":
    main()
