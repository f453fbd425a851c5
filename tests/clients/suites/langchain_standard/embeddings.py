"""langchain-tests' standard integration suite for embeddings, as its authors wrote it, on OpenAIEmbeddings."""

import os

from langchain_openai import OpenAIEmbeddings
from langchain_tests.integration_tests import EmbeddingsIntegrationTests


class TestOpenAIEmbeddings(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self) -> type[OpenAIEmbeddings]:
        return OpenAIEmbeddings

    @property
    def embedding_model_params(self) -> dict:
        """Texts go as texts: cutting them up needs OpenAI's own tokeniser, which is fetched from the internet."""
        return {"model": os.environ["MODEL"], "check_embedding_ctx_length": False}
