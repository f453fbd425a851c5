from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch
import transformers
from safetensors.torch import load as read_tensors
from torch import Tensor

from learner.batch import pack
from learner.examples import Sequence
from learner.policy.model import CONFIG_FILE, WEIGHTS_FILE, Policy, base_digest
from ratchet.config.model import LoraConfig
from ratchet.errors import AdapterError, ConfigError
from tests.unit.learner import tiny_policy

PROMPT = [5, 9, 1, 33, 60]
ANSWERS = [[7, 8, 9, 10], [11], [12, 13], [7, 8, 2, 1, 0, 6]]


def plain(policy: Policy, prompt: list[int], answer: list[int], temperature: float = 1.0) -> Tensor:
    """Log-probs by the model's own forward over the whole sequence, nothing shared, nothing packed."""
    ids = torch.tensor([prompt + answer])
    logits = policy.model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1] / temperature
    chosen: Tensor = logits.log_softmax(-1).gather(1, ids[0, len(prompt) :, None])[:, 0]
    return chosen


@pytest.fixture
def stirred(policy: Policy) -> Policy:
    tiny_policy.stir(policy)
    return policy


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_shared_prompt_log_probs_are_those_of_the_plain_forward(stirred: Policy, temperature: float) -> None:
    found, mask = stirred.log_probs(PROMPT, ANSWERS, temperature=temperature)
    assert mask.sum(1).tolist() == [len(a) for a in ANSWERS]
    assert bool((found[~mask] == 0).all())
    for row, answer in zip(found, ANSWERS, strict=True):
        torch.testing.assert_close(row[: len(answer)], plain(stirred, PROMPT, answer, temperature), rtol=0, atol=2e-5)


def test_shared_prompt_gradients_are_those_of_the_plain_forward(stirred: Policy) -> None:
    weights = torch.randn(len(ANSWERS), 6, generator=torch.Generator().manual_seed(0))

    def gradients(total: Tensor) -> dict[str, Tensor]:
        return dict(zip(stirred.parameters(), torch.autograd.grad(total, list(stirred.parameters().values())), strict=True))

    shared = gradients((stirred.log_probs(PROMPT, ANSWERS)[0] * weights).sum())
    rows = [(plain(stirred, PROMPT, a) * weights[i, : len(a)]).sum() for i, a in enumerate(ANSWERS)]
    alone = gradients(torch.stack(rows).sum())
    for name, gradient in alone.items():
        torch.testing.assert_close(shared[name], gradient, rtol=1e-4, atol=1e-4)


def test_groups_packed_together_score_as_they_do_alone(stirred: Policy) -> None:
    other = [40, 41]
    rows = [Sequence(n, prompt, a, [], t) for n, (prompt, t) in enumerate([(PROMPT, 1.0), (other, 0.5)]) for a in ANSWERS]
    together = stirred.packed_log_probs(pack(rows))
    for n, (prompt, t) in enumerate([(PROMPT, 1.0), (other, 0.5)]):
        alone = stirred.log_probs(prompt, ANSWERS, temperature=t)[0]
        torch.testing.assert_close(together[4 * n : 4 * n + 4], alone, rtol=0, atol=2e-5)


def test_the_reference_is_the_base_with_the_adapter_disabled_and_it_comes_back(base: Path, stirred: Policy) -> None:
    bare = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with_adapter = stirred.log_probs(PROMPT, ANSWERS)[0]
    reference = stirred.log_probs(PROMPT, ANSWERS, adapter=False)[0]
    ids = torch.tensor([PROMPT + ANSWERS[0]])
    expected = bare(ids).logits[0, len(PROMPT) - 1 : -1].log_softmax(-1).gather(1, ids[0, len(PROMPT) :, None])[:, 0]
    torch.testing.assert_close(reference[0, :4], expected, rtol=0, atol=2e-5)
    assert float((with_adapter - reference).detach().abs().max()) > 0.05
    assert torch.equal(stirred.log_probs(PROMPT, ANSWERS)[0], with_adapter)
    assert all(p.requires_grad for p in stirred.parameters().values())


def test_a_fresh_adapter_is_the_base(policy: Policy) -> None:
    assert torch.equal(policy.log_probs(PROMPT, ANSWERS)[0], policy.log_probs(PROMPT, ANSWERS, adapter=False)[0])


def test_the_seed_alone_decides_the_fresh_adapter_and_the_callers_generator_is_left_alone(base: Path) -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first = tiny_policy.load(base, seed=4).adapter_files()
    assert torch.equal(torch.rand(1), expected)
    torch.manual_seed(99)
    assert tiny_policy.load(base, seed=4).adapter_files() == first
    assert tiny_policy.load(base, seed=5).adapter_files() != first


def test_only_the_adapter_is_trainable_and_the_head_has_none(policy: Policy) -> None:
    names = {name for name, p in policy.model.named_parameters() if p.requires_grad}
    assert all(".lora_" in name for name in names)
    assert len(names) == len(policy.parameters()) == 2 * 7 * 2


def test_target_modules_may_be_named(base: Path) -> None:
    policy = tiny_policy.load(base, lora=LoraConfig(rank=2, target_modules=["v_proj", "q_proj"]))
    assert {name.split(".")[-3] for name in policy.parameters()} == {"q_proj", "v_proj"}
    assert json.loads(policy.adapter_files()[CONFIG_FILE])["target_modules"] == ["q_proj", "v_proj"]


def test_the_files_are_what_peft_loads_and_give_the_same_log_probs(base: Path, stirred: Policy, tmp_path: Path) -> None:
    for name, data in stirred.adapter_files().items():
        (tmp_path / name).write_bytes(data)
    bare = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    loaded = Policy(peft.PeftModel.from_pretrained(bare, tmp_path, is_trainable=True).eval(), base, tiny_policy.LORA)
    assert torch.equal(loaded.log_probs(PROMPT, ANSWERS)[0], stirred.log_probs(PROMPT, ANSWERS)[0])


def test_the_tensors_have_the_names_peft_itself_saves(stirred: Policy, tmp_path: Path) -> None:
    stirred.model.save_pretrained(tmp_path)
    theirs = read_tensors((tmp_path / WEIGHTS_FILE).read_bytes())
    ours = read_tensors(stirred.adapter_files()[WEIGHTS_FILE])
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_config_names_no_path_and_does_not_care_how_alpha_was_written(base: Path) -> None:
    whole = tiny_policy.load(base, lora=LoraConfig(rank=4, alpha=8)).adapter_files()[CONFIG_FILE]
    assert whole == tiny_policy.load(base, lora=LoraConfig.model_validate({"rank": 4, "alpha": 8.0})).adapter_files()[CONFIG_FILE]
    assert str(base) not in whole.decode()
    assert json.loads(whole)["lora_alpha"] == 8


def test_weights_go_out_and_come_back_bit_for_bit(base: Path, stirred: Policy, tmp_path: Path) -> None:
    for name, data in stirred.adapter_files().items():
        (tmp_path / name).write_bytes(data)
    fresh = tiny_policy.load(base)
    fresh.load_adapter_files(tmp_path)
    assert fresh.adapter_files() == stirred.adapter_files()


def test_a_state_is_a_copy(policy: Policy) -> None:
    state = policy.adapter_state()
    tiny_policy.stir(policy)
    assert any(not torch.equal(state[name], value) for name, value in policy.adapter_state().items())
    policy.set_adapter_state(state)
    assert all(torch.equal(state[name], value) for name, value in policy.adapter_state().items())


def test_an_adapter_of_another_rank_is_refused_and_changes_nothing(base: Path, stirred: Policy, tmp_path: Path) -> None:
    before = stirred.adapter_files()
    for name, data in tiny_policy.load(base, lora=LoraConfig(rank=2)).adapter_files().items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(AdapterError, match="rank 4"):
        stirred.load_adapter_files(tmp_path)
    assert stirred.adapter_files() == before


@pytest.mark.parametrize("damage", [lambda p: p.unlink(), lambda p: p.write_bytes(p.read_bytes()[:100])], ids=["missing", "cut"])
def test_an_unreadable_adapter_is_refused(stirred: Policy, tmp_path: Path, damage: Callable[[Path], object]) -> None:
    for name, data in stirred.adapter_files().items():
        (tmp_path / name).write_bytes(data)
    damage(tmp_path / WEIGHTS_FILE)
    with pytest.raises(AdapterError, match="cannot read the adapter"):
        stirred.load_adapter_files(tmp_path)


def test_a_folder_without_a_model_or_a_target_is_a_config_error(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot train on"):
        tiny_policy.load(tmp_path)
    with pytest.raises(ConfigError, match="cannot train on"):
        tiny_policy.load(base, lora=LoraConfig(target_modules=["no_such_proj"]))
    with pytest.raises(ConfigError, match=r"no \.safetensors"):
        base_digest(tmp_path)


def test_an_architecture_that_ignores_the_mask_is_refused_at_load(tmp_path: Path) -> None:
    config = transformers.MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, state_size=4, initializer_range=0.3)
    torch.manual_seed(0)
    transformers.MambaForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(ConfigError):
        tiny_policy.load(tmp_path, lora=LoraConfig(rank=2, target_modules=["x_proj"]))


def test_a_sequence_longer_than_the_model_attends_to_is_refused(policy: Policy) -> None:
    with pytest.raises(ValueError, match="longer than the 128 tokens"):
        policy.log_probs([1] * 120, [[2] * 10])


def test_the_base_digest_changes_with_a_byte_of_the_weights(base: Path, tmp_path: Path) -> None:
    weights = (base / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights)
    assert base_digest(tmp_path) == base_digest(base)
    (tmp_path / "model.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    assert base_digest(tmp_path) != base_digest(base)
