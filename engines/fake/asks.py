"""What a request asks for, whatever its route: each route's fields as those of a chat or a text completion."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import msgspec

from engines.fake import model, play

LONGEST = 2**14
"""Tokens of an answer; a model's length bounds them too."""
TEXT_TOKENS = 16
"""vLLM's `max_tokens` of a text completion that names none."""
CHOICES = {"any": "required", "auto": "auto", "none": "none"}


class Ask(msgspec.Struct, dict=True):
    """The fields of a request that the fake heeds."""

    model: str = ""
    messages: list[dict[str, Any]] = []
    prompt: list[Any] | str = ""
    n: int = 1
    stream: bool = False
    stream_options: dict[str, Any] | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    ignore_eos: bool = False
    echo: bool = False
    logprobs: bool | int | None = None
    top_logprobs: int | None = None
    return_token_ids: bool = False
    response_format: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None
    tree: dict[str, Any] = {}
    """The body as it came, where its route repeats it."""

    @cached_property
    def call(self) -> play.Call | None:
        """The tool call that the answer is."""
        return play.called(self.tools or [], self.tool_choice, self.messages)

    @property
    def playable(self) -> bool:
        """Whether the schemas in it, which are anybody's, can be read as such."""
        try:
            return self.text is None or bool(self.text)
        except (AttributeError, LookupError, TypeError):
            return False

    @cached_property
    def text(self) -> bytes | None:
        """What the answer has to say; None: anything."""
        said = self.call.text if self.call is not None else play.formed(self.response_format, self.messages)
        return None if said is None else said.encode()

    @property
    def limit(self) -> int:
        return min(self.max_completion_tokens or self.max_tokens or 1024, LONGEST)

    @cached_property
    def prompts(self) -> list[list[int]]:
        """The ids of each prompt: one of a chat, any number of a text completion."""
        if self.messages:
            return [model.prompt_ids(self.messages)]
        several = isinstance(self.prompt, list) and not all(isinstance(item, int) for item in self.prompt)
        return [model.ids_of(prompt) for prompt in (self.prompt if several else [self.prompt])]


def of_chat(tree: dict[str, Any]) -> Ask:
    """msgspec.ValidationError, as all of these."""
    return msgspec.convert(tree, Ask)


def of_text(tree: dict[str, Any]) -> Ask:
    return msgspec.convert({"max_tokens": TEXT_TOKENS, **tree}, Ask)


def of_response(tree: dict[str, Any]) -> Ask:
    """`POST /v1/responses`."""
    given = tree.get("input")
    system = [{"role": "system", "content": tree["instructions"]}] if tree.get("instructions") else []
    items = [{"role": "user", "content": given}] if isinstance(given, str) else [_turn(item) for item in given or ()]
    choice = tree.get("tool_choice")
    form = (tree.get("text") or {}).get("format") or {}
    return msgspec.convert(
        {
            **_same(tree, "model", "stream", "temperature", "seed", "stop", "ignore_eos", "top_logprobs"),
            "messages": [*system, *items],
            "max_tokens": tree.get("max_output_tokens"),
            "logprobs": "message.output_text.logprobs" in (tree.get("include") or ()),
            "response_format": {"type": form.get("type"), "json_schema": form},
            "tools": [{"function": tool} for tool in tree.get("tools") or ()],
            "tool_choice": {"function": choice} if isinstance(choice, dict) else choice,
            "tree": tree,
        },
        Ask,
    )


def of_message(tree: dict[str, Any]) -> Ask:
    """`POST /v1/messages`."""
    system = [{"role": "system", "content": tree["system"]}] if tree.get("system") else []
    choice = tree.get("tool_choice") or {}
    named = {"function": {"name": choice.get("name")}}
    tools = [{"function": {"name": tool["name"], "parameters": tool.get("input_schema")}} for tool in tree.get("tools") or ()]
    return msgspec.convert(
        {
            **_same(tree, "model", "stream", "temperature", "max_tokens"),
            "messages": [*system, *(_spoken(message) for message in tree.get("messages") or ())],
            "stop": tree.get("stop_sequences"),
            "tools": tools,
            "tool_choice": CHOICES.get(choice.get("type", "auto"), named),
        },
        Ask,
    )


def _same(tree: Mapping[str, Any], *fields: str) -> dict[str, Any]:
    return {field: tree[field] for field in fields if tree.get(field) is not None}


def _turn(item: Mapping[str, Any]) -> dict[str, Any]:
    if item.get("type") == "function_call_output":
        return {"role": "tool", "content": item.get("output")}
    return {"role": item.get("role", "assistant"), "content": item.get("content") or item.get("arguments")}


def _spoken(message: Mapping[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    results = [block for block in _blocks(content) if block.get("type") == "tool_result"]
    return {"role": "tool", "content": results[0].get("content")} if results else {"role": message.get("role"), "content": content}


def _blocks(content: Any) -> Iterable[Mapping[str, Any]]:
    return content if isinstance(content, list) else ()
