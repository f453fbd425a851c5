"""langchain-tests' standard integration suite for chat models, as its authors wrote it, on ChatOpenAI."""

import os

from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests


class TestChatOpenAI(ChatModelIntegrationTests):
    """Texts only: no engine here sees, hears or reads PDFs. Everything else the suite can ask for is asked for."""

    @property
    def chat_model_class(self) -> type[ChatOpenAI]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict:
        return {"model": os.environ["MODEL"], "stream_usage": True}

    @property
    def has_tool_calling(self) -> bool:
        return True

    @property
    def has_tool_choice(self) -> bool:
        return True

    @property
    def has_structured_output(self) -> bool:
        return True

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_model_override(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return f"{os.environ['MODEL']}@1"


class TestChatOpenAIResponses(TestChatOpenAI):
    """The same over the responses API."""

    @property
    def chat_model_params(self) -> dict:
        return {"model": os.environ["MODEL"], "use_responses_api": True}
