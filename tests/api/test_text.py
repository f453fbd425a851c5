"""`POST /v1/completions` over real HTTP, with the unmodified SDK."""

from __future__ import annotations

from typing import Any

import pytest

from learner.shadow.resample import messages_of
from tests.support.gateway_process import POLICY, Bench

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_prompt_is_completed_whole_and_streamed_alike(shared: Bench) -> None:
    sdk = shared.sdk()
    whole = await sdk.completions.create(model=POLICY, prompt="say:naïve 🙂", max_tokens=40)
    assert (whole.object, whole.model, whole.choices[0].text, whole.choices[0].finish_reason) == (
        "text_completion",
        f"{POLICY}@0",
        "naïve 🙂",
        "stop",
    )
    chunks = [
        chunk
        async for chunk in await sdk.completions.create(
            model=POLICY, prompt="say:naïve 🙂", max_tokens=40, stream=True, stream_options={"include_usage": True}
        )
    ]
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == "naïve 🙂"
    assert (chunks[-1].usage, {chunk.model for chunk in chunks}) == (whole.usage, {whole.model})


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_log_probs_and_ids_are_the_clients_only_if_it_asks(shared: Bench, stream: bool) -> None:
    fields: dict[str, Any] = {"model": POLICY, "prompt": "say:abc", "max_tokens": 40, "stream": stream}
    told = (await shared.call("POST", "/v1/completions", {**fields, "logprobs": 1, "return_token_ids": True})).text
    assert '"token_logprobs":[' in told and '"token_ids":[' in told and '"prompt_token_ids":[' in told
    less = (await shared.call("POST", "/v1/completions", {**fields, "logprobs": 0})).text
    assert '"token_logprobs":[' in less and "token_ids" not in less


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_every_choice_of_every_prompt_comes_and_is_recorded_but_not_learned_from(shared: Bench, stream: bool) -> None:
    body = {"model": POLICY, "prompt": ["say:one", "say:two"], "n": 2, "max_tokens": 40, "stream": stream}
    before = await shared.metric("ratchet_untrainable_total", reason="batch")
    answer = await shared.call("POST", "/v1/completions", body)
    public_id = answer.text.split('"id":"')[1].split('"')[0]
    kept = await shared.store.interactions.get(public_id, "acme")
    assert kept is not None
    assert [(choice.index, choice.message["content"]) for choice in kept.choices] == [(0, "one"), (1, "one"), (2, "two"), (3, "two")]
    assert kept.untrainable == "batch"
    assert await shared.metric("ratchet_untrainable_total", reason="batch") == before + 1


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_prompt_is_echoed_though_its_answer_is_recorded(shared: Bench, stream: bool) -> None:
    body = {"model": POLICY, "prompt": "say:abc", "max_tokens": 40, "echo": True, "stream": stream}
    answer = await shared.call("POST", "/v1/completions", body)
    assert "say:abc" in answer.text
    assert "token_ids" not in answer.text
    kept = await shared.store.interactions.get(answer.text.split('"id":"')[1].split('"')[0], "acme")
    assert kept is not None
    assert (kept.untrainable, kept.choices[0].message["content"]) == ("echo", "say:abcabc")


async def test_a_prompt_of_token_ids_is_exact_and_fit_to_learn_from(shared: Bench) -> None:
    answer = await shared.sdk().completions.create(model=POLICY, prompt=list(b"say:ids"), max_tokens=40)
    kept = await shared.store.interactions.get(answer.id, "acme")
    assert kept is not None
    assert (answer.choices[0].text, kept.prompt_ids, kept.untrainable) == ("ids", list(b"say:ids"), "")


async def test_rated_completions_of_one_prompt_are_a_group_whose_prompt_reward_functions_can_read(shared: Bench) -> None:
    answer = await shared.sdk().completions.create(model=POLICY, prompt="Tell me of the moon.", n=2, max_tokens=40)
    ready = await shared.store.experience.ready(POLICY, ["group"])
    for choice, value in enumerate((0.0, 1.0)):
        told = await shared.call("POST", "/v1/feedback", {"target": answer.id, "choice": choice, "value": value})
        assert told.status_code == 202
    assert await shared.store.experience.ready(POLICY, ["group"]) == ready + 1
    lease = await shared.store.experience.lease(POLICY, 1, kinds={"group": 0}, max_examples=ready + 1)
    assert lease is not None
    [group] = [group for group in lease.examples if group.id == answer.id]
    await shared.store.experience.release(POLICY)
    assert (group.shadow, group.rewards, group.interactions[0].route) == (False, [0.0, 1.0], "/v1/completions")
    assert all(len(choice.token_ids) == len(choice.logprobs) > 0 for choice in group.interactions[0].choices)
    assert bytes(group.interactions[0].prompt_ids).decode() == "Tell me of the moon."
    assert messages_of(group.interactions[0]) == [{"role": "user", "content": "Tell me of the moon."}]
