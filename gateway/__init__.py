"""The gateway: OpenAI's API in front of the engines. Run as `python -m gateway`. See docs/gateway.md."""
