"""The `anthropic` package on a real small model."""

import os

from anthropic import Anthropic

ASKED = [{"role": "user", "content": "Name one fruit."}]


def test_a_message_is_answered_and_streamed(model: str) -> None:
    client = Anthropic(base_url=os.environ["OPENAI_BASE_URL"].removesuffix("/v1"), api_key=os.environ["OPENAI_API_KEY"], max_retries=0)
    whole = client.messages.create(model=model, max_tokens=8, messages=ASKED)
    assert whole.content[0].text
    assert whole.usage.output_tokens <= 8
    with client.messages.stream(model=model, max_tokens=8, messages=ASKED) as stream:
        assert "".join(stream.text_stream) == stream.get_final_message().content[0].text
