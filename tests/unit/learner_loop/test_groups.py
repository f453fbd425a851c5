"""Seeds, ids, shadow records and lineage: functions of their arguments and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from engines import Sample
from learner import groups
from ratchet import names
from ratchet.config import PolicyConfig
from ratchet.types import Sampling
from tests.support.stores import group_of, interaction

SAMPLES = [Sample([5, 6], [-0.5, -1.0], "ab", "stop"), Sample([7], [-2.0], "c", "length")]


def test_a_seed_depends_on_every_part_and_on_where_one_ends() -> None:
    assert groups.seed_of("a", 1) == groups.seed_of("a", 1)
    assert len({groups.seed_of(*parts) for parts in [("a", 1), ("a", 2), ("b", 1), ("a1",), ("", "a1"), (1, "a")]}) == 6
    assert 0 <= groups.seed_of("a", 1) < 2**31


def test_a_shadow_groups_id_has_the_public_form_and_repeats() -> None:
    ident = groups.shadow_id("support", 0, 3, "chatcmpl-x", 0)
    assert names.RESPONSE_ID.fullmatch(ident) and ident == groups.shadow_id("support", 0, 3, "chatcmpl-x", 0)
    assert ident != groups.shadow_id("support", 0, 3, "chatcmpl-x", 1)


@pytest.mark.parametrize(("own", "limit", "expected"), [(None, 64, 64), (16, 64, 16), (500, 64, 64), (0, 64, 1)])
def test_an_answer_is_resampled_no_longer_than_its_request_allowed(own: int | None, limit: int, expected: int) -> None:
    assert groups.max_tokens_of(interaction(sampling=Sampling(max_tokens=own)), limit) == expected


@pytest.mark.parametrize(("recorded", "used"), [(0.0, 1.0), (0.7, 0.7), (1.0, 1.0)])
def test_a_greedy_answers_prompt_is_resampled_at_temperature_one(recorded: float, used: float) -> None:
    assert groups.temperature_of(interaction(sampling=Sampling(temperature=recorded))) == used


def test_a_shadow_record_has_the_exact_prompt_and_names_its_source() -> None:
    source = interaction(sampling=Sampling(temperature=0.7, top_p=0.9))
    made = groups.shadow(source, SAMPLES, ident="chatcmpl-s", version=4, engine="e1", max_tokens=8)
    assert made.prompt_ids == source.prompt_ids and made.tenant == "_ratchet" and made.version == 4
    assert [(c.token_ids, c.logprobs) for c in made.choices] == [([5, 6], [-0.5, -1.0]), ([7], [-2.0])]
    # No top-p: what was drawn is drawn from the distribution the learner computes.
    assert made.sampling == Sampling(temperature=0.7, max_tokens=8)
    assert made.metadata == {"source": source.id} and not made.untrainable


def test_the_lineage_names_the_answers_and_the_prompts_that_were_resampled() -> None:
    natural, source = interaction(2, created=10.0), interaction(created=99.0)
    shadow = groups.shadow(source, SAMPLES, ident="chatcmpl-s", version=0, engine="e", max_tokens=8)
    shadow.created = 20.0
    learned = [group_of(natural, [0.0, 1.0]), group_of(shadow, [0.0, 1.0], shadow=True)]
    fields = groups.manifest_fields(
        "support",
        PolicyConfig(base="m", seed=3),
        learned,
        version=2,
        parent=1,
        step=5,
        base_digest="d",
        consumed=[natural.id, "chatcmpl-s"],
    )
    assert fields["interactions"] == sorted([natural.id, "chatcmpl-s", source.id])
    assert (fields["parent"], fields["seed"], fields["step"], fields["algorithm"]["type"]) == (1, 3, 5, "grpo")
    # The stamp is the experience's, so that the same experience gives the same manifest.
    assert fields["created"] == 20.0


def test_a_group_that_was_left_out_is_not_in_the_lineage() -> None:
    one, other = interaction(2), interaction(2)
    both = [group_of(item, [0.0, 1.0]) for item in (one, other)]
    fields = groups.manifest_fields("p", PolicyConfig(base="m"), both, version=1, parent=0, step=1, base_digest="d", consumed=[one.id])
    assert fields["interactions"] == [one.id]


def test_equal_rewards_have_no_spread() -> None:
    assert groups.has_spread([0.0, 1e-9]) and not groups.has_spread([0.5, 0.5])


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({"messages": [{"role": "user", "content": "hi"}]}, [{"role": "user", "content": "hi"}]),
        ({"prompt": "hi"}, [{"role": "user", "content": "hi"}]),
        ({"prompt": ["hi"]}, [{"role": "user", "content": "hi"}]),
        ({"prompt": [1, 2]}, []),
        ({"prompt": [[1, 2]]}, []),
        ({"prompt": ["hi", "ho"]}, []),
        ({"input": "hi"}, []),
    ],
)
def test_a_text_completions_prompt_is_the_users_message(request_: dict[str, Any], expected: list[dict[str, str]]) -> None:
    assert groups.messages_of(interaction(request=request_)) == expected
