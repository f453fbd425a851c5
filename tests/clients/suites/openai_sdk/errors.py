"""The `openai` package: each refusal is the exception its users catch, and retries wait as long as they are told."""

import json
import os
import time
import urllib.request

import openai
import pytest
from openai import OpenAI

HELLO = [{"role": "user", "content": "say:hello"}]


def faults(**what: object) -> None:
    """Tells the fake engine what to do to its next requests."""
    body = json.dumps(what).encode()
    urllib.request.urlopen(urllib.request.Request(os.environ["FAKE_URL"] + "/fake/faults", body, method="POST")).read()


def client(**options: object) -> OpenAI:
    return OpenAI(max_retries=0, **options)


def test_no_valid_key_is_an_authentication_error(model: str) -> None:
    with pytest.raises(openai.AuthenticationError) as caught:
        client(api_key="wrong").chat.completions.create(model=model, messages=HELLO)
    assert (caught.value.status_code, caught.value.code) == (401, "invalid_api_key")
    assert caught.value.request_id


def test_a_key_of_another_scope_is_a_permission_error(model: str) -> None:
    with pytest.raises(openai.PermissionDeniedError):
        client(api_key=os.environ["KEY_FEEDBACK"]).chat.completions.create(model=model, messages=HELLO)


def test_an_unknown_model_is_not_found() -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client().chat.completions.create(model="nobody", messages=HELLO)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": 3}, "temperature"),
        ({"n": 0}, "n"),
        ({"extra_body": {"frobnicate": 1}}, "frobnicate"),
        ({"top_logprobs": 2}, "top_logprobs"),
    ],
)
def test_a_wrong_field_is_a_bad_request_that_names_it(model: str, fields: dict, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client().chat.completions.create(model=model, messages=HELLO, **fields)
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"


def test_an_engine_that_refuses_is_tried_again_after_the_seconds_told(model: str) -> None:
    faults(refuse=503, times=1)
    with pytest.raises(openai.InternalServerError) as caught:
        client().chat.completions.create(model=model, messages=HELLO)
    told = int(caught.value.response.headers["retry-after"])
    faults(refuse=503, times=1)
    begun = time.monotonic()
    answer = OpenAI(max_retries=2).chat.completions.create(model=model, messages=HELLO)
    assert answer.choices[0].message.content == "hello"
    assert time.monotonic() - begun >= told  # the SDK's own first wait is half a second at most


def test_an_answer_that_takes_too_long_is_a_timeout(model: str) -> None:
    faults(hang_after=0, times=1)
    with pytest.raises(openai.APITimeoutError):
        client(timeout=0.5).chat.completions.create(model=model, messages=HELLO)


def test_a_stream_that_breaks_raises_in_the_loop(model: str) -> None:
    faults(die_after=3, times=1)
    with pytest.raises(openai.APIError) as caught:
        list(client().chat.completions.create(model=model, messages=HELLO, stream=True))
    assert caught.value.code == "engine_broken"


def test_nobody_there_is_a_connection_error(model: str) -> None:
    with pytest.raises(openai.APIConnectionError):
        client(base_url="http://127.0.0.1:9/v1").chat.completions.create(model=model, messages=HELLO)
