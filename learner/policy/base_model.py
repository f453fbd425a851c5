"""The base model: read from disk, given a LoRA adapter, identified by a digest. The one user of transformers and PEFT for training."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import peft
import torch
import transformers

from ratchet.config.model import LoraConfig
from ratchet.errors import ConfigError


def read(folder: Path, lora: LoraConfig, seed: int, device: torch.device) -> Any:
    """The base of `folder` in float32 with a fresh adapter whose A is drawn from `seed`.

    ConfigError: the folder holds no usable model, or a target module is missing.
    """
    transformers.utils.logging.disable_progress_bar()
    try:
        base = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, attn_implementation="sdpa"
        )
        return _with_adapter(base, lora, seed).to(device).eval()
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot train on {folder}: {error}") from error


def tokenizer(folder: Path) -> Any:
    """The tokenizer of the base in `folder`."""
    return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)


def digest(folder: Path) -> str:
    """sha256 (hex) over the names and bytes of the `.safetensors` files of `folder`. ConfigError: it has none."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ConfigError(f"{folder} holds no .safetensors file")
    whole = hashlib.sha256()
    for path in files:
        with path.open("rb") as stream:
            whole.update(f"{path.name} {hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return whole.hexdigest()


def _with_adapter(base: Any, lora: LoraConfig, seed: int) -> Any:
    config = peft.LoraConfig(
        r=lora.rank,
        # 16 and 16.0 must give the same bytes of adapter_config.json.
        lora_alpha=int(lora.alpha) if float(lora.alpha).is_integer() else lora.alpha,
        target_modules=_targets(base, lora.target_modules),
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )
    with _seeded(seed):
        return peft.get_peft_model(base, config)


def _targets(base: Any, wanted: str | list[str]) -> list[str]:
    """The leaf names to adapt, sorted; `all-linear` is every linear layer but the output's."""
    if wanted != "all-linear":
        return [wanted] if isinstance(wanted, str) else sorted(wanted)
    head = base.get_output_embeddings()
    return sorted({name.rpartition(".")[2] for name, m in base.named_modules() if isinstance(m, torch.nn.Linear) and m is not head})


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draw from `seed` inside the block; the caller's generator is restored after it."""
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(before)


def place(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("learner.device is cuda, but torch sees no GPU")
    return torch.device(name)


def be_deterministic(threads: int) -> None:
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    # Filling every fresh tensor costs time and guards only against code that reads memory it never wrote.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
