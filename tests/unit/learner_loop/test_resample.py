"""How a recorded prompt is resampled."""

from __future__ import annotations

from typing import Any

import pytest

from engines import Sample
from learner.shadow import resample
from ratchet.types import Sampling
from tests.support.stores import interaction

SAMPLES = [Sample([5, 6], [-0.5, -1.0], "ab", "stop"), Sample([7], [-2.0], "c", "length")]


@pytest.mark.parametrize(("own", "limit", "expected"), [(None, 64, 64), (16, 64, 16), (500, 64, 64), (0, 64, 1)])
def test_an_answer_is_resampled_no_longer_than_its_request_allowed(own: int | None, limit: int, expected: int) -> None:
    assert resample.max_tokens_of(interaction(sampling=Sampling(max_tokens=own)), limit) == expected


@pytest.mark.parametrize(("recorded", "used"), [(0.0, 1.0), (0.7, 0.7), (1.0, 1.0)])
def test_a_greedy_answers_prompt_is_resampled_at_temperature_one(recorded: float, used: float) -> None:
    assert resample.temperature_of(interaction(sampling=Sampling(temperature=recorded))) == used


def test_a_shadow_record_has_the_exact_prompt_and_names_its_source() -> None:
    source = interaction(sampling=Sampling(temperature=0.7, top_p=0.9))
    made = resample.interaction(source, SAMPLES, ident="chatcmpl-s", version=4, engine="e1", max_tokens=8)
    assert made.prompt_ids == source.prompt_ids and made.tenant == "_ratchet" and made.version == 4
    assert [(c.token_ids, c.logprobs) for c in made.choices] == [([5, 6], [-0.5, -1.0]), ([7], [-2.0])]
    # No top-p: what was drawn is drawn from the distribution the learner computes.
    assert made.sampling == Sampling(temperature=0.7, max_tokens=8)
    assert made.metadata == {"source": source.id} and not made.untrainable


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
    assert resample.messages_of(interaction(request=request_)) == expected
