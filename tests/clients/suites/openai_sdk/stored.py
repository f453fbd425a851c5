"""The `openai` package: models, stored completions, and feedback by its plain `post`."""

import os
import uuid

import openai
import pytest
from openai import OpenAI


def test_models_are_listed_and_found(model: str) -> None:
    client = OpenAI()
    names = [one.id for one in client.models.list()]
    assert {model, f"{model}@0"} <= set(names)
    assert client.models.retrieve(model).id == model
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody")


def test_a_completion_is_stored_listed_and_read_back_by_its_tenant_alone(model: str) -> None:
    client, mark = OpenAI(), uuid.uuid4().hex
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "say:kept"}]
    made = [client.chat.completions.create(model=model, messages=messages, metadata={"mark": mark}).id for _ in range(3)]
    listed = client.chat.completions.list(metadata={"mark": mark}, limit=2, order="asc")
    assert [one.id for one in listed.data] == made[:2]
    assert [one.id for one in listed] == made  # the SDK's own paging, by `after`
    kept = client.chat.completions.retrieve(made[0])
    assert (kept.choices[0].message.content, kept.metadata) == ("kept", {"mark": mark})
    asked = client.chat.completions.messages.list(made[0])
    assert [(one.role, one.content) for one in asked] == [(m["role"], m["content"]) for m in messages]
    with pytest.raises(openai.NotFoundError):
        OpenAI(api_key=os.environ["KEY_OTHER"]).chat.completions.retrieve(made[0])


def test_a_stored_completions_metadata_is_changed_and_it_is_deleted(model: str) -> None:
    client = OpenAI()
    made = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "say:kept"}], metadata={"a": "1"})
    assert client.chat.completions.update(made.id, metadata={"b": "2"}).metadata == {"b": "2"}
    assert client.chat.completions.retrieve(made.id).metadata == {"b": "2"}
    assert client.chat.completions.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.retrieve(made.id)


def test_what_is_not_to_be_stored_is_not(model: str) -> None:
    client = OpenAI()
    made = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "say:gone"}], store=False)
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.retrieve(made.id)


def test_an_answer_is_rated(model: str) -> None:
    client = OpenAI()
    made = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "say:good"}])
    given = client.post("/feedback", body={"target": made.id, "metric": "reward", "value": 1.0}, cast_to=object)
    assert given["object"] == "feedback"
