"""The paths that several parts of the gateway name."""

from __future__ import annotations

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"
POOLING = ("/v1/embeddings", "/v1/rerank", "/v1/score")
TOKENS = ("/tokenize", "/detokenize")
