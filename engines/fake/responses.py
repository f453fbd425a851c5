"""`/v1/responses`: the request as the fake's own, the response and its events in vLLM's form."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from engines.fake.answers import Ask, Token, chat_logprobs
from ratchet.names import RESPONSE_PREFIX

MESSAGE, CALL = "msg_0123456789abcdef", "fc_0123456789abcdef"
LOGPROBS = "message.output_text.logprobs"


class Asked(msgspec.Struct):
    """The fields that the fake heeds."""

    model: str = ""
    input: str | list[dict[str, Any]] = ""
    instructions: str | None = None
    max_output_tokens: int | None = None
    stream: bool = False
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    ignore_eos: bool = False
    include: list[str] | None = None
    top_logprobs: int | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None
    text: dict[str, Any] | None = None
    request_id: str = ""

    def ask(self) -> Ask:
        form = (self.text or {}).get("format")
        choice = self.tool_choice
        return Ask(
            model=self.model,
            messages=list(_messages(self)),
            stream=self.stream,
            max_tokens=self.max_output_tokens,
            temperature=self.temperature,
            seed=self.seed,
            stop=self.stop,
            ignore_eos=self.ignore_eos,
            logprobs=LOGPROBS in (self.include or ()),
            top_logprobs=self.top_logprobs,
            tools=[{"type": "function", "function": tool} for tool in self.tools or ()],
            tool_choice={"function": choice} if isinstance(choice, dict) else choice,
            response_format={**form, "json_schema": form} if isinstance(form, dict) else None,
        )


def _messages(asked: Asked) -> Iterator[dict[str, Any]]:
    if asked.instructions:
        yield {"role": "system", "content": asked.instructions}
    items = [{"role": "user", "content": asked.input}] if isinstance(asked.input, str) else asked.input
    for item in items:
        if item.get("type") == "function_call_output":
            yield {"role": "tool", "content": item.get("output")}
        elif item.get("type") == "function_call":
            yield {"role": "assistant", "content": item.get("arguments")}
        elif item.get("type", "message") == "message":
            yield {"role": item.get("role"), "content": item.get("content")}


class Responses:
    """One response's form."""

    def __init__(self, asked: Asked, ask: Ask) -> None:
        self._asked, self._ask = asked, ask
        self._id = asked.request_id or RESPONSE_PREFIX + "0123456789abcdef"
        self._created = int(time.time())
        self._number = 0

    def whole(self, prompts: Sequence[Sequence[int]], drawn: Sequence[Token]) -> dict[str, Any]:
        cut = drawn[-1].finish == "length"
        usage = {"input_tokens": len(prompts[0]), "output_tokens": len(drawn), "total_tokens": len(prompts[0]) + len(drawn)}
        details = {"input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
        output = [self._item(drawn, "completed")]
        return self._response("incomplete" if cut else "completed", output, {**usage, **details})

    def _response(self, status: str, output: list[Any], usage: Any) -> dict[str, Any]:
        asked = self._asked
        return {
            "id": self._id,
            "created_at": self._created,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": asked.instructions,
            "metadata": None,
            "model": asked.model,
            "object": "response",
            "output": output,
            "parallel_tool_calls": True,
            "temperature": asked.temperature,
            "tool_choice": asked.tool_choice or ("auto" if asked.tools else "none"),
            "tools": asked.tools or [],
            "top_p": asked.top_p,
            "background": False,
            "max_output_tokens": asked.max_output_tokens,
            "previous_response_id": None,
            "reasoning": None,
            "service_tier": "auto",
            "status": status,
            "text": asked.text,
            "top_logprobs": asked.top_logprobs,
            "truncation": "disabled",
            "usage": usage,
            "user": None,
        }

    def _item(self, drawn: Sequence[Token], status: str) -> dict[str, Any]:
        call = self._ask.call
        if call is None:
            content = [self._part(drawn)] if drawn else []
            return {"id": MESSAGE, "content": content, "role": "assistant", "status": status, "type": "message", "phase": None}
        told = {"arguments": call.arguments if drawn else "", "call_id": call.message["id"], "name": call.name}
        return {**told, "type": "function_call", "id": CALL, "status": status}

    def _part(self, drawn: Sequence[Token]) -> dict[str, Any]:
        return {"annotations": [], "text": "".join(t.text for t in drawn), "type": "output_text", "logprobs": self._logprobs(drawn)}

    def _logprobs(self, drawn: Sequence[Token]) -> list[Any] | None:
        return chat_logprobs(drawn, self._ask.top_logprobs or 0)["content"] if self._ask.logprobs else None

    def begin(self, prompts: Sequence[Sequence[int]]) -> Iterator[bytes]:
        for kind in ("response.created", "response.in_progress"):
            yield self._event(kind, response=self._response("in_progress", [], None))
        yield self._event("response.output_item.added", item=self._item([], "in_progress"), output_index=0)
        if self._ask.call is None:
            part = {"annotations": [], "text": "", "type": "output_text", "logprobs": []}
            yield self._event("response.content_part.added", **self._place(), part=part)

    def token(self, token: Token) -> Iterator[bytes]:
        call = self._ask.call
        if call is None:
            if token.text:
                yield self._event("response.output_text.delta", **self._place(), delta=token.text, logprobs=self._logprobs([token]) or [])
            return
        for part in call.delta(token.at, token.text).get("tool_calls", ()):
            if "arguments" in part["function"]:
                delta = part["function"]["arguments"]
                yield self._event("response.function_call_arguments.delta", delta=delta, item_id=CALL, output_index=0)

    def end(self, prompts: Sequence[Sequence[int]], drawn: Sequence[Token]) -> Iterator[bytes]:
        call, text = self._ask.call, "".join(t.text for t in drawn)
        if call is None:
            yield self._event("response.output_text.done", **self._place(), logprobs=self._logprobs(drawn) or [], text=text)
            yield self._event("response.content_part.done", **self._place(), part=self._part(drawn))
        else:
            told = {"arguments": call.arguments, "name": call.name}
            yield self._event("response.function_call_arguments.done", **told, item_id=CALL, output_index=0)
        yield self._event("response.output_item.done", item=self._item(drawn, "completed"), output_index=0)
        yield self._event("response.completed", response=self.whole(prompts, drawn))

    def _place(self) -> dict[str, Any]:
        return {"content_index": 0, "item_id": MESSAGE, "output_index": 0}

    def _event(self, kind: str, **fields: Any) -> bytes:
        body = msgspec.json.encode({**fields, "sequence_number": self._number, "type": kind})
        self._number += 1
        return b"event: %s\ndata: %s\n\n" % (kind.encode(), body)
