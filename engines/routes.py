"""The inference routes by the paths that clients know; engines of OpenAI's form have the same."""

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"
EMBEDDINGS, RERANK, SCORE = POOLING = ("/v1/embeddings", "/v1/rerank", "/v1/score")
TOKENIZE, DETOKENIZE = TOKENS = ("/tokenize", "/detokenize")
