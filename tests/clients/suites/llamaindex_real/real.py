"""LlamaIndex's OpenAILike on a real small model."""

import os

from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike

ASKED = [ChatMessage(role="user", content="Name one fruit.")]


def test_it_chats_and_streams(model: str) -> None:
    llm = OpenAILike(
        model=model, api_base=os.environ["OPENAI_BASE_URL"], api_key=os.environ["OPENAI_API_KEY"], is_chat_model=True, max_tokens=8
    )
    assert llm.chat(ASKED).message.content
    parts = list(llm.stream_chat(ASKED))
    assert "".join(part.delta or "" for part in parts) == parts[-1].message.content
