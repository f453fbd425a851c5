"""The inference routes. The relay serves them; each has a dialect in `gateway/dialects/` that knows its form."""

from __future__ import annotations

from engines.routes import CHAT, MESSAGES, RESPONSES, TEXT
from gateway.api.endpoint import JSON, STREAM, Endpoint, Form
from gateway.api.table import INFER
from gateway.dialects.forms import MessagesRequest, ResponsesRequest
from gateway.dialects.plain import FORMS
from gateway.dialects.schema import ChatRequest, TextRequest


def _generating(path: str, summary: str, body: type[Form], operation: str, *, x_api_key: bool = False) -> Endpoint:
    media_types = (JSON, STREAM)
    return Endpoint("POST", path, INFER, summary, body, media_types=media_types, operation=operation, x_api_key=x_api_key)


def _plain(path: str, summary: str, operation: str) -> Endpoint:
    return Endpoint("POST", path, INFER, summary, FORMS[path], operation=operation)


INFERENCE = (
    _generating(CHAT, "Create a chat completion, whole or streamed.", ChatRequest, "chat"),
    _generating(TEXT, "Create a text completion, whole or streamed.", TextRequest, "text_completion"),
    _generating(RESPONSES, "Create a response, whole or as named events.", ResponsesRequest, "chat"),
    _generating(MESSAGES, "Create a message in Anthropic's form, whole or as named events.", MessagesRequest, "chat", x_api_key=True),
    _plain("/v1/embeddings", "Create embeddings of texts.", "embeddings"),
    _plain("/v1/rerank", "Order documents by their relevance to a query.", "rerank"),
    _plain("/v1/score", "Score pairs of texts for their similarity.", "score"),
    _plain("/tokenize", "Return the token ids of a prompt or a chat.", "tokenize"),
    _plain("/detokenize", "Return the text of token ids.", "detokenize"),
)
