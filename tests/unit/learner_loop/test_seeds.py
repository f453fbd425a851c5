"""Seeds and ids: functions of their arguments and nothing else."""

from __future__ import annotations

from learner import seeds
from ratchet import names


def test_a_seed_depends_on_every_part_and_on_where_one_ends() -> None:
    assert seeds.seed_of("a", 1) == seeds.seed_of("a", 1)
    assert len({seeds.seed_of(*parts) for parts in [("a", 1), ("a", 2), ("b", 1), ("a1",), ("", "a1"), (1, "a")]}) == 6
    assert 0 <= seeds.seed_of("a", 1) < 2**31


def test_a_shadow_groups_id_has_the_public_form_and_repeats() -> None:
    ident = seeds.shadow_id("support", 0, 3, "chatcmpl-x", 0)
    assert names.RESPONSE_ID.fullmatch(ident) and ident == seeds.shadow_id("support", 0, 3, "chatcmpl-x", 0)
    assert ident != seeds.shadow_id("support", 0, 3, "chatcmpl-x", 1)
