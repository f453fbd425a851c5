"""The policy being trained: a float32 base with a LoRA adapter, and the exact log-probs of answers.

The reference policy is the base with the adapter disabled: no second model in memory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import safetensors
import safetensors.torch
import torch
from torch import Tensor
from torch.nn import Parameter

from learner.batch import Packed, pack
from learner.examples import Sequence
from learner.policy import base_model
from learner.policy.head import chosen_log_probs
from ratchet.config.model import LoraConfig
from ratchet.errors import AdapterError, ConfigError

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
SELF_CHECK_TOLERANCE = 1e-3
"""Nats. Packed and plain log-probs differ by about 1e-5 in float32; a model that ignores the mask differs by whole nats."""


class Policy:
    """A causal language model with one LoRA adapter. Not thread-safe: one caller at a time."""

    def __init__(self, model: Any, base_path: Path, lora: LoraConfig) -> None:
        self.model = model
        self.base_path = base_path
        self.lora = lora
        self._parameters = {
            name.replace(".default.", "."): parameter for name, parameter in sorted(model.named_parameters()) if parameter.requires_grad
        }

    @classmethod
    def load(
        cls, base_path: Path, lora: LoraConfig, *, seed: int = 0, device: Literal["auto", "cpu", "cuda"] = "auto", threads: int = 1
    ) -> Self:
        """Load the base in float32 and add a new adapter, A drawn from `seed` and B zero, which at first changes nothing.

        Sets torch's thread count and deterministic algorithms for the whole process. Raises ConfigError if the folder holds no
        usable model, a target module is missing, or the model does not honour the attention mask that packing needs.
        """
        base_model.be_deterministic(threads)
        policy = cls(base_model.read(base_path, lora, seed, base_model.place(device)), base_path, lora)
        policy._self_check()
        return policy

    @property
    def device(self) -> torch.device:
        place: torch.device = next(iter(self._parameters.values())).device
        return place

    def parameters(self) -> dict[str, Parameter]:
        """The adapter's parameters, by their names in the adapter's file."""
        return dict(self._parameters)

    # Log-probs

    def log_probs(
        self, prompt_ids: list[int], completions: list[list[int]], *, temperature: float = 1.0, adapter: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Log-probs [G, T] (nats) of each answer's tokens at `temperature`, zero past its end, and the bool mask [G, T].

        The prompt is computed once for the group, with gradients. `adapter=False`: the base's. ValueError: nothing to score.
        """
        rows = [Sequence(0, prompt_ids, answer, [], temperature) for answer in completions]
        packed = pack(rows, self.device)
        return self.packed_log_probs(packed, adapter=adapter), packed.mask

    def packed_log_probs(self, packed: Packed, *, adapter: bool = True) -> Tensor:
        """Log-probs [B, T] of a packed micro-batch, zero outside its mask; logits only where an answer token is predicted."""
        self._check_window(packed)
        with nullcontext() if adapter else self.model.disable_adapter():
            # use_cache=False: with a cache, transformers treats the row as one sequence, and the results are silently wrong.
            logits = self.model(
                input_ids=packed.ids,
                position_ids=packed.positions,
                attention_mask=packed.attend,
                use_cache=False,
                logits_to_keep=packed.predictors,
            ).logits[0]
        return packed.spread(chosen_log_probs(logits, packed.temperature, packed.source, packed.target))

    @cached_property
    def window(self) -> int:
        """Tokens that the model attends to."""
        config = self.model.config.get_text_config()
        return int(getattr(config, "sliding_window", None) or config.max_position_embeddings)

    def _check_window(self, packed: Packed) -> None:
        if int(packed.positions.max()) >= self.window:
            raise ValueError(f"a sequence is longer than the {self.window} tokens the model attends to")

    def _self_check(self) -> None:
        """Compare packed with plain log-probs, to refuse an architecture that ignores the attention mask or the positions."""
        prompt, answers = [1, 2, 3], [[4, 5, 6], [7, 8], [9]]
        with torch.inference_mode():
            packed = self.log_probs(prompt, answers)[0]
            for row, answer in zip(packed, answers, strict=True):
                ids = torch.tensor([prompt + answer], device=self.device)
                plain = self.model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
                difference = row[: len(answer)] - plain.gather(1, ids[0, len(prompt) :, None])[:, 0]
                if not bool((difference.abs() < SELF_CHECK_TOLERANCE).all()):
                    raise ConfigError(
                        f"{self.base_path}: this architecture does not give packed answers their own context; it cannot be trained"
                    )

    # The adapter

    def adapter_state(self) -> dict[str, Tensor]:
        """Return a copy of the adapter's tensors, on the CPU."""
        return {name: parameter.detach().cpu().clone() for name, parameter in self._parameters.items()}

    def set_adapter_state(self, state: Mapping[str, Tensor]) -> None:
        """Copy `state` into the adapter. Raises AdapterError if a tensor is missing, unknown or of another shape."""
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
        if shapes != {name: tuple(parameter.shape) for name, parameter in self._parameters.items()}:
            raise AdapterError(f"the adapter's tensors are not those of rank {self.lora.rank} on {self.base_path.name}")
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(state[name])

    def adapter_files(self) -> dict[str, bytes]:
        """Return the adapter's files as PEFT saves and vLLM loads them. The same weights give the same bytes on every machine."""
        config = self.model.peft_config["default"].to_dict() | {"inference_mode": True, "base_model_name_or_path": None}
        text = json.dumps(config, sort_keys=True, indent=2, default=sorted)
        return {CONFIG_FILE: text.encode(), WEIGHTS_FILE: safetensors.torch.save(self.adapter_state(), metadata={"format": "pt"})}

    def load_adapter_files(self, folder: Path) -> None:
        """Load the weights of an adapter that `adapter_files` wrote. Raises AdapterError if unreadable, or of another rank or base."""
        try:
            state = safetensors.torch.load_file(folder / WEIGHTS_FILE)
        except (OSError, safetensors.SafetensorError) as error:
            raise AdapterError(f"cannot read the adapter {folder.name}: {error}") from error
        self.set_adapter_state(state)

    # Text

    @cached_property
    def tokenizer(self) -> Any:
        return base_model.tokenizer(self.base_path)

    def encode(self, messages: list[dict[str, Any]]) -> list[int]:
        """Return the ids of a chat, up to the beginning of the assistant's answer, by the base's own template."""
        text = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def decode(self, ids: list[int]) -> str:
        """Return the text of `ids` without special tokens, with spaces unchanged."""
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    @cached_property
    def base_digest(self) -> str:
        """sha256 (hex) over the base's weight files, by name."""
        return base_model.digest(self.base_path)
