"""Ratchet: an OpenAI-compatible gateway whose model gets better while it serves, and never worse."""

__version__ = "0.1.0"
