"""A real Llama, small and random, saved as a Hugging Face folder; and groups for it to learn from."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers

from learner.policy.model import Policy
from ratchet.config.model import LoraConfig
from ratchet.types import Choice, Example, Interaction, Sampling
from tests.support.stores import group_of

VOCABULARY = 64
LORA = LoraConfig(rank=4, alpha=8)


def save_base(folder: Path, *, seed: int = 7, **config: int) -> Path:
    """Two layers, hidden 32, grouped-query attention, an untied head, weights from `seed`."""
    shape = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.3, tie_word_embeddings=False, **config,
    )  # fmt: skip
    torch.manual_seed(seed)
    transformers.LlamaForCausalLM(shape).save_pretrained(folder)
    return folder


def load(folder: Path, *, seed: int = 0, lora: LoraConfig = LORA) -> Policy:
    return Policy.load(folder, lora, seed=seed, device="cpu", threads=1)


def stir(policy: Policy, *, seed: int = 3, scale: float = 0.3) -> None:
    """Gives the adapter random weights, so that it is not the base."""
    draw = torch.Generator().manual_seed(seed)
    policy.set_adapter_state({k: torch.randn(v.shape, generator=draw) * scale for k, v in policy.adapter_state().items()})


def group(policy: Policy, number: int, rewards: list[float], *, lengths: list[int] | None = None, temperature: float = 1.0) -> Example:
    """Answers drawn uniformly, with the policy's own log-probs as the engine's, nudged as another engine's numerics would."""
    draw = torch.Generator().manual_seed(number)
    ids = [
        torch.randint(VOCABULARY, (n,), generator=draw).tolist() for n in (lengths or [3 + (i + number) % 5 for i in range(len(rewards))])
    ]
    prompt = torch.randint(VOCABULARY, (4 + number % 3,), generator=draw).tolist()
    with torch.inference_mode():
        scored = policy.log_probs(prompt, ids, temperature=temperature)[0]
    engine = (scored + 0.05 * torch.randn(scored.shape, generator=draw)).tolist()
    choices = [Choice(i, row, engine[i][: len(row)], {"role": "assistant", "content": ""}) for i, row in enumerate(ids)]
    interaction = Interaction(
        id=f"chatcmpl-{number:032x}", tenant="t", policy="p", version=0, base="b", engine="e", route="/v1/chat/completions", created=0.0,
        status="complete", request={}, prompt_ids=prompt, choices=choices, sampling=Sampling(temperature=temperature),
    )  # fmt: skip
    return group_of(interaction, rewards, ident=f"g{number}", shadow=True)
