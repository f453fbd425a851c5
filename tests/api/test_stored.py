"""OpenAI's stored completions through the SDK: messages, other metadata, deletion."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from ratchet import names
from tests.support.gateway_process import POLICY, Bench
from tests.support.stores import interaction

pytestmark = pytest.mark.asyncio(loop_scope="session")
PARTS: list[Any] = [{"role": "user", "content": [{"type": "text", "text": "say:"}, {"type": "text", "text": "hé"}]}]


async def test_an_answer_is_shown_with_the_parameters_in_force_and_its_messages_with_their_parts(shared: Bench) -> None:
    sdk = shared.sdk()
    made = await sdk.chat.completions.create(model=POLICY, messages=PARTS, temperature=0.5, seed=7, user="ann", store=True)
    shown = (await shared.call("GET", f"/v1/chat/completions/{made.id}")).json()
    assert made.usage is not None
    assert (shown["object"], shown["created"], shown["model"]) == ("chat.completion", made.created, made.model)
    assert shown["usage"] == made.usage.model_dump(exclude_none=True)
    assert (shown["temperature"], shown["top_p"], shown["seed"], shown["input_user"]) == (0.5, 1.0, 7, "ann")
    assert not {"prompt_ids", "token_ids"} & {*shown, *shown["choices"][0]}
    message = (await sdk.chat.completions.messages.list(made.id)).data[0]
    assert (message.id, message.role, message.content) == (f"{made.id}-0", "user", "say:hé")
    assert [part.text for part in message.content_parts or []] == ["say:", "hé"]  # type: ignore[union-attr]


async def test_messages_are_paged_in_both_directions(shared: Bench) -> None:
    said = [{"role": role, "content": f"{i}"} for i, role in enumerate(("system", "user", "assistant", "user"))]
    sdk = shared.sdk()
    made = await sdk.chat.completions.create(model=POLICY, messages=said)  # type: ignore[arg-type]
    for order, wanted in (("asc", "0123"), ("desc", "3210")):
        listed = sdk.chat.completions.messages.list(made.id, limit=3, order=order)  # type: ignore[arg-type]
        assert "".join([str(message.content) async for message in listed]) == wanted
    assert (await sdk.chat.completions.messages.list(made.id, after="nobody")).data == []


async def test_other_metadata_replaces_all_of_the_old_and_null_clears_it(shared: Bench) -> None:
    sdk = shared.sdk()
    made = await sdk.chat.completions.create(model=POLICY, messages=PARTS, metadata={"a": "1", "batch": "changed"})
    changed = await sdk.chat.completions.update(made.id, metadata={"b": "2", "batch": "changed"})
    assert (changed.id, changed.metadata) == (made.id, {"b": "2", "batch": "changed"})
    assert (await sdk.chat.completions.retrieve(made.id)).metadata == changed.metadata
    assert [item.id async for item in sdk.chat.completions.list(metadata={"b": "2", "batch": "changed"})] == [made.id]
    assert (await sdk.chat.completions.list(metadata={"a": "1", "batch": "changed"})).data == []
    assert (await sdk.chat.completions.update(made.id, metadata={})).metadata == {}
    await sdk.chat.completions.update(made.id, metadata={"c": "3"})
    assert (await sdk.chat.completions.update(made.id, metadata=None)).metadata == {}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "metadata"),
        ({"metadata": {f"k{i}": "v" for i in range(17)}}, "metadata"),
        ({"metadata": {"k" * 65: "v"}}, "metadata"),
        ({"metadata": {"k": "v" * 513}}, "metadata"),
        ({"metadata": {"k": 1}}, "metadata"),
        ({"metadata": {}, "model": "x"}, "model"),
    ],
)
async def test_metadata_past_openais_bounds_is_400_and_changes_nothing(shared: Bench, body: Any, param: str) -> None:
    made = (await shared.chat(metadata={"kept": "yes"})).json()["id"]
    answer = await shared.call("POST", f"/v1/chat/completions/{made}", body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert (await shared.call("GET", f"/v1/chat/completions/{made}")).json()["metadata"] == {"kept": "yes"}


async def test_sixteen_pairs_of_the_longest_kind_are_taken(shared: Bench) -> None:
    made = (await shared.chat()).json()["id"]
    metadata = {f"{i:064}": "é" * 512 for i in range(16)}
    answer = await shared.call("POST", f"/v1/chat/completions/{made}", {"metadata": metadata})
    assert answer.json()["metadata"] == metadata


async def test_a_deleted_answer_is_404_everywhere_and_its_feedback_too(shared: Bench) -> None:
    sdk = shared.sdk()
    made = await sdk.chat.completions.create(model=POLICY, messages=PARTS, metadata={"batch": "deleted"})
    feedback = {"target": made.id, "value": 1}
    assert (await shared.call("POST", "/v1/feedback", feedback)).status_code == 202
    before = (await shared.store.feedback.ledger()).rejected.get("deleted", 0)
    gone = await sdk.chat.completions.delete(made.id)
    assert gone.model_dump() == {"id": made.id, "object": "chat.completion.deleted", "deleted": True}
    path = f"/v1/chat/completions/{made.id}"
    for method, where, body in (
        ("GET", path, None),
        ("GET", f"{path}/messages", None),
        ("POST", path, {"metadata": {}}),
        ("DELETE", path, None),
        ("POST", "/v1/feedback", feedback),
    ):
        answer = await shared.call(method, where, body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found"), (method, where)
    assert (await sdk.chat.completions.list(metadata={"batch": "deleted"})).data == []
    ledger = await shared.store.feedback.ledger()
    assert ledger.balances
    assert ledger.rejected["deleted"] == before + 1


async def test_deleting_while_listing_reaches_every_answer(shared: Bench) -> None:
    made = [(await shared.chat(metadata={"batch": "swept"})).json()["id"] for _ in range(5)]
    sdk = shared.sdk()
    swept = []
    async for item in sdk.chat.completions.list(limit=2, metadata={"batch": "swept"}):
        await sdk.chat.completions.delete(item.id)
        swept.append(item.id)
    assert swept == made


@pytest.mark.parametrize("item", ["chatcmpl-" + "0" * 32, "x", "..%2fx", "fb_" + "0" * 32])
async def test_an_answer_nobody_has_is_404(shared: Bench, item: str) -> None:
    for method, body in (("GET", None), ("POST", {"metadata": {}}), ("DELETE", None)):
        answer = await shared.call(method, f"/v1/chat/completions/{item}", body)
        assert answer.status_code == 404, method


async def test_anothers_answer_and_one_of_another_route_are_404_and_stay_as_they_are(shared: Bench) -> None:
    chat = (await shared.chat(metadata={"mine": "yes"})).json()["id"]
    other = interaction(id=names.mint("resp_"), route="/v1/responses", metadata={"mine": "yes"})
    await shared.store.interactions.put([other])
    for item, key in ((chat, "other"), (other.id, "client")):
        for method, body in (("GET", None), ("POST", {"metadata": {}}), ("DELETE", None)):
            assert (await shared.call(method, f"/v1/chat/completions/{item}", body, key=key)).status_code == 404
        kept = await shared.store.interactions.get(item, "acme")
        assert kept is not None
        assert kept.metadata == {"mine": "yes"}
    listed = [item.id async for item in shared.sdk().chat.completions.list(metadata={"mine": "yes"})]
    assert listed == [chat]


async def test_what_was_not_to_be_stored_is_not_found(shared: Bench) -> None:
    made = (await shared.chat(store=False)).json()["id"]
    with pytest.raises(openai.NotFoundError):
        await shared.sdk().chat.completions.retrieve(made)
