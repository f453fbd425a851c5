"""Helpers for engines whose routes follow OpenAI's (and, for messages, Anthropic's); a kind may use them or not."""
