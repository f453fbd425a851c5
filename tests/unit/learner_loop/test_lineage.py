"""What a version's manifest says of where it came from."""

from __future__ import annotations

from engines import Sample
from learner.publication import lineage
from learner.shadow import resample
from ratchet.config import PolicyConfig
from tests.support.stores import group_of, interaction

SAMPLES = [Sample([5, 6], [-0.5, -1.0], "ab", "stop"), Sample([7], [-2.0], "c", "length")]


def test_the_lineage_names_the_answers_and_the_prompts_that_were_resampled() -> None:
    natural, source = interaction(2, created=10.0), interaction(created=99.0)
    shadow = resample.interaction(source, SAMPLES, ident="chatcmpl-s", version=0, engine="e", max_tokens=8)
    shadow.created = 20.0
    learned = [group_of(natural, [0.0, 1.0]), group_of(shadow, [0.0, 1.0], shadow=True)]
    fields = lineage.manifest_fields(
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
    fields = lineage.manifest_fields("p", PolicyConfig(base="m"), both, version=1, parent=0, step=1, base_digest="d", consumed=[one.id])
    assert fields["interactions"] == [one.id]
