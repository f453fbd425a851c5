"""Shadow groups: when an engine has room, of live prompts, at the live version, the same again in a replay."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines import Load
from learner.leasing import AHEAD, CROWDED
from learner.shadow.shadow import room
from ratchet.buffer import Store
from ratchet.config import Config, ShadowConfig
from ratchet.types import Sampling
from tests.support.learner_setup import SCORER, World, configuration, record, world
from tests.support.stores import POLICY, listed

SIZE = 4


def shadowed(model: Path, url: str, scorer: str = SCORER, min_groups: int = 2) -> Config:
    return configuration(
        model,
        url,
        rewards=[{"path": scorer}],
        shadow={"enabled": True, "group_size": SIZE, "max_tokens": 6},
        schedule={"min_groups": min_groups},
    )


async def leased(w: World) -> list[tuple[str, list[float], list[list[int]]]]:
    lease = await w.store.experience.lease(POLICY, 1, kinds={"group": 0}, max_examples=100)
    assert lease is not None
    return [(g.id, g.rewards, [c.token_ids for c in g.interactions[0].choices]) for g in lease.examples]


@pytest.mark.parametrize(
    ("running", "waiting", "slots", "groups"),
    [(0, 0, 32, 4), (0, 1, 32, 0), (17, 0, 32, 0), (16, 0, 32, 1), (8, 0, 32, 2), (0, 0, 4, 1), (0, 0, 0, 1), (1, 0, 0, 0)],
)
def test_an_engine_is_given_what_it_has_room_for(running: int, waiting: int, slots: int, groups: int) -> None:
    assert room(Load(running, waiting, slots), ShadowConfig(group_size=SIZE, busy_share=0.5)) == groups


async def test_a_live_prompt_is_resampled_scored_and_ready(store: Store, model: Path, url: str, tmp_path: Path) -> None:
    async with world(store, tmp_path, shadowed(model, url)) as w:
        source = await w.ask("Where is my parcel?", 1, sampling=Sampling(temperature=0.7, max_tokens=3))
        assert await w.loop._parts.shadow.once() > 0
        lease = await store.experience.lease(POLICY, 1, kinds={"group": 0}, max_examples=1)
        assert lease is not None
        (group,) = lease.examples
        found = group.interactions[0]
        assert group.shadow and found.metadata["source"] == source.id and found.prompt_ids == source.prompt_ids
        assert found.n == SIZE and found.version == 0 and found.sampling.temperature == 0.7
        assert all(0 < len(c.token_ids) == len(c.logprobs) <= 3 for c in found.choices)
        # Nobody's interaction, and no client's reward.
        assert await listed(store, "acme", limit=10) == ([source], False)
        assert (await store.feedback.ledger()).received == 0


async def test_a_replay_draws_the_same_groups_under_the_same_ids(store: Store, model: Path, url: str, tmp_path: Path) -> None:
    config = shadowed(model, url)
    async with world(store, tmp_path, config) as w:
        await w.ask("Where is my parcel?", 1)
        await w.loop._parts.shadow.once()
        ready = await store.experience.ready(POLICY, ["group"])
    async with world(store, tmp_path, config) as again:
        await again.loop._parts.shadow.once()
        assert await store.experience.ready(POLICY, ["group"]) == ready, "the replay's group is the one that is there"
        await again.loop._parts.shadow.once()
        drawn = await leased(again)
        assert len(drawn) > ready and len({str(ids) for _, _, ids in drawn}) == len(drawn), "a prompt that comes round again is drawn anew"


async def test_nothing_is_made_beyond_what_the_next_steps_take(store: Store, model: Path, url: str, tmp_path: Path) -> None:
    async with world(store, tmp_path, shadowed(model, url, min_groups=1)) as w:
        for text in "abcd":
            await w.ask(text, 1)
        while await w.loop._parts.shadow.once():
            pass
        assert await store.experience.ready(POLICY, ["group"]) == 2


@pytest.mark.parametrize(("scorer", "reason"), [("nan", "reward_not_finite"), ("raising", "reward_raised")])
async def test_a_group_without_its_rewards_is_not_stored_and_counted(
    scorer: str, reason: str, store: Store, model: Path, url: str, tmp_path: Path
) -> None:
    async with world(store, tmp_path, shadowed(model, url, f"tests.support.reward_functions:{scorer}", min_groups=1)) as w:
        await w.ask("Where is my parcel?", 1)
        assert await w.loop._parts.shadow.once() == 0
        await w.loop._status.write()
        assert (await store.registry.status(POLICY))["skipped"] == {reason: 1}
        assert await store.experience.ready(POLICY, ["group"]) == 0


async def test_while_no_group_teaches_sampling_goes_on_and_the_store_does_not_fill(
    store: Store, model: Path, url: str, tmp_path: Path
) -> None:
    """A scorer that gives every answer the same: groups are stored, counted, set aside, and drawn anew; no version is made."""
    async with world(store, tmp_path, shadowed(model, url, "tests.support.reward_functions:constant", min_groups=2)) as w:
        for text in "ab":
            await w.ask(text, 1)
        for turn in range(3):
            while await store.experience.ready(POLICY, ["group"]) < 2:
                assert await w.loop._parts.shadow.once() > 0, f"sampling stopped in turn {turn}"
            assert not await w.loop.cycle()
            assert await store.experience.ready(POLICY, ["group"]) == 0
        await w.loop._status.write()
        assert (await store.registry.status(POLICY))["skipped"]["zero_spread"] >= 6
        assert await store.registry.version(POLICY, 1) is None


async def test_groups_that_teach_nothing_do_not_count_as_ready_but_bound_what_is_sampled_ahead(
    store: Store, model: Path, url: str, tmp_path: Path
) -> None:
    async with world(store, tmp_path, shadowed(model, url, "tests.support.reward_functions:constant", min_groups=1)) as w:
        for text in "abcd":
            await w.ask(text, 1)
        while await w.loop._parts.shadow.once():
            pass
        assert await store.experience.ready(POLICY, ["group"]) == CROWDED * AHEAD


async def test_a_step_is_made_once_enough_of_the_sampled_groups_teach(store: Store, model: Path, url: str, tmp_path: Path) -> None:
    """One prompt in three gives groups with a spread: the others are set aside, with their rewards in the reported mean."""
    async with world(store, tmp_path, shadowed(model, url, "tests.support.reward_functions:early_letters_of_learn", min_groups=2)) as w:
        for text in ("flat one", "flat two", "learn"):
            await w.ask(text, 1)
        while not await w.loop.cycle():
            await w.loop._parts.shadow.once()
        version = await store.registry.version(POLICY, 1)
        assert version is not None and version.state == "live" and len(version.consumed) >= 2
        assert w.loop._status.fields["skipped"]["zero_spread"] >= 1
        assert version.reward is not None and version.reward > 0.5, "groups of reward 1 that teach nothing are in the mean"


async def test_an_engine_without_the_live_version_is_passed_over(store: Store, model: Path, url: str, tmp_path: Path) -> None:
    async with world(store, tmp_path, shadowed(model, url, min_groups=1)) as w:
        await w.learnable("Where is my parcel?")
        await w.loop.cycle()
        assert await w.live() == 1
        await (await w.engine()).unload(f"{POLICY}@1")
        assert await w.loop._parts.shadow.once() == 0
        assert w.loop._status.fields["skipped"]["engine"] >= 1


async def test_an_engine_that_is_down_is_not_asked(store: Store, model: Path, url: str, tmp_path: Path) -> None:
    async with world(store, tmp_path, shadowed(model, url)) as w:
        await w.ask("Where is my parcel?", 1)
        await store.fleet.put(record(url, state="down"))
        assert await w.loop._parts.shadow.once() == 0


@pytest.mark.parametrize("policy", [{}, {"rewards": [{"path": SCORER}], "shadow": {"enabled": False}}])
async def test_without_a_scorer_or_when_turned_off_nothing_is_sampled(
    policy: dict[str, object], store: Store, model: Path, url: str, tmp_path: Path
) -> None:
    async with world(store, tmp_path, configuration(model, url, **policy)) as w:
        await w.loop.run_shadow()
