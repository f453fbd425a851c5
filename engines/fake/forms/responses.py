"""`/v1/responses` as vLLM 0.32 writes it; a stream cut off by `max_output_tokens` ends in `response.completed` all the same."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import msgspec

from engines.fake.answers import Token
from engines.fake.asks import Ask
from engines.fake.forms.base import Form, likeliest
from engines.fake.forms.chats import delta
from engines.fake.model import token_text

FUNCTION = {
    "name": None,
    "parameters": None,
    "strict": None,
    "type": "function",
    "allowed_callers": None,
    "async": None,
    "defer_loading": None,
    "description": None,
    "output_schema": None,
}
"""A tool's fields in the order of OpenAI's library, which vLLM writes them with."""


class ResponseForm(Form):
    def __init__(self, ask: Ask, public_id: str) -> None:
        super().__init__(ask, ask.tree.get("request_id") or public_id)
        self._sequence = 0
        self._item = _Item(("msg_" if ask.call is None else "fc_") + secrets.token_hex(8), ask)
        self._open = False
        self._reason: str | None = None

    def whole(self, drawn: Sequence[Token]) -> dict[str, Any]:
        for token in drawn:
            self._item.take(token)
        self.count, self._reason = len(drawn), drawn[-1].finish
        return self._response(self._status, [self._item.done(self._reason)])

    def first(self) -> bytes:
        started = self._response("in_progress", [])
        return self._event("response.created", response=started) + self._event("response.in_progress", response=started)

    def token(self, token: Token) -> bytes:
        self.count, self._reason = self.count + 1, token.finish
        added = self._item.take(token)
        if added is None:
            return b""
        events = b"" if self._open else self._begin()
        self._open = True
        if not added:  # the call's name
            return events
        if self.ask.call is not None:
            return events + self._event("response.function_call_arguments.delta", delta=added, item_id=self._item.id, output_index=0)
        place = {"content_index": 0, "delta": added, "item_id": self._item.id}
        logprobs = [{key: entry[key] for key in ("token", "logprob", "top_logprobs")} for entry in self._item.logprobs([token], bare=True)]
        return events + self._event("response.output_text.delta", **place, logprobs=logprobs, output_index=0)

    def last(self) -> bytes:
        events = self._end() if self._open else b""
        output = [self._item.done(self._reason)] if self._open else []
        return events + self._event("response.completed", response=self._response(self._status, output))

    @property
    def _status(self) -> str:
        return "incomplete" if self._reason == "length" else "completed"

    def _begin(self) -> bytes:
        events = self._event("response.output_item.added", item=self._item.begun(), output_index=0)
        if self.ask.call is not None:
            return events
        part = {"annotations": [], "text": "", "type": "output_text", "logprobs": []}
        place = {"content_index": 0, "item_id": self._item.id, "output_index": 0}
        return events + self._event("response.content_part.added", **place, part=part)

    def _end(self) -> bytes:
        item = self._item.done(self._reason)
        if self.ask.call is not None:
            call = {"arguments": self._item.text, "item_id": self._item.id, "name": self.ask.call.name, "output_index": 0}
            events = self._event("response.function_call_arguments.done", **call)
        else:
            place = {"content_index": 0, "item_id": self._item.id}
            events = self._event("response.output_text.done", **place, logprobs=[], output_index=0, text=self._item.text)
            events += self._event("response.content_part.done", **place, output_index=0, part=item["content"][0])
        return events + self._event("response.output_item.done", item=item, output_index=0)

    def _event(self, kind: str, **fields: Any) -> bytes:
        """The fields in the order of OpenAI's library, which is the alphabet's but for `name`."""
        fields |= {"sequence_number": self._sequence, "type": kind}
        payload = msgspec.json.encode({key: fields[key] for key in sorted(fields, key=lambda key: (key == "name", key))})
        self._sequence += 1
        return b"event: %s\ndata: %s\n\n" % (kind.encode(), payload)

    def _response(self, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
        given = self.ask.tree
        tools = [{**FUNCTION, **tool} for tool in given.get("tools") or ()]
        return {
            "id": self.id,
            "created_at": self.created,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": given.get("instructions"),
            "metadata": given.get("metadata"),
            "model": self.ask.model,
            "object": "response",
            "output": output,
            "parallel_tool_calls": given.get("parallel_tool_calls") is not False,
            "temperature": given.get("temperature", 1.0),
            "tool_choice": given.get("tool_choice", "auto") if tools else "none",
            "tools": tools,
            "top_p": given.get("top_p", 1.0),
            "background": False,
            "max_output_tokens": self.ask.limit,
            "max_tool_calls": given.get("max_tool_calls"),
            "previous_response_id": given.get("previous_response_id"),
            "prompt": None,
            "reasoning": given.get("reasoning"),
            "service_tier": given.get("service_tier", "auto"),
            "status": status,
            "text": given.get("text"),
            "top_logprobs": given.get("top_logprobs", 0) if self.ask.logprobs else None,
            "truncation": given.get("truncation", "disabled"),
            "usage": None if status == "in_progress" else self._counted(),
            "user": given.get("user"),
            "presence_penalty": given.get("presence_penalty", 0.0),
            "frequency_penalty": given.get("frequency_penalty", 0.0),
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "input_messages": None,
            "output_messages": None,
        }

    def _counted(self) -> dict[str, Any]:
        per_turn: list[int] = []
        before = {"cached_tokens": 0, "cache_write_tokens": 0, "input_tokens_per_turn": per_turn, "cached_tokens_per_turn": per_turn}
        after = {
            "reasoning_tokens": 0,
            "tool_output_tokens": 0,
            "output_tokens_per_turn": per_turn,
            "tool_output_tokens_per_turn": per_turn,
        }
        usage = self.usage(self.count)
        return {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": before,
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": after,
            "total_tokens": usage["total_tokens"],
        }


class _Item:
    """The one item of the output: a message, or a function's call."""

    def __init__(self, ident: str, ask: Ask) -> None:
        self.id = ident
        self.text = ""
        self._ask = ask
        self._drawn: list[Token] = []

    def take(self, token: Token) -> str | None:
        """What the token adds to a stream: None for nothing at all, "" for a call's name."""
        if self._ask.call is not None:
            calls = delta(self._ask, token).get("tool_calls")
            if not calls:
                return None
            added = str(calls[0]["function"].get("arguments", ""))
            self.text += added
            return added
        if token.text or not self._ask.stream:  # a stream forgets the log-probs of tokens that brought no text
            self._drawn.append(token)
        self.text += token.text
        return token.text or None

    def begun(self) -> dict[str, Any]:
        return self._call("", "in_progress") if self._ask.call is not None else self._message([], "in_progress")

    def done(self, reason: str | None) -> dict[str, Any]:
        if self._ask.call is not None:
            return self._call(self.text, "completed")
        part = {"annotations": [], "text": self.text, "type": "output_text", "logprobs": self.logprobs(self._drawn) or None}
        return self._message([part] if self.text else [], "completed")

    def logprobs(self, drawn: Sequence[Token], *, bare: bool = False) -> list[dict[str, Any]]:
        """`bare`: as a stream tells them, the likeliest without their bytes."""
        if not self._ask.logprobs:
            return []
        entries = []
        for token in drawn:
            tops = [_entry(ident, value) for ident, value in likeliest(token, self._ask.top_logprobs or 0)]
            shown = [{"token": top["token"], "logprob": top["logprob"]} for top in tops] if bare else tops
            entries.append({**_entry(token.id, token.logprob), "top_logprobs": shown})
        return entries

    def _message(self, content: list[dict[str, Any]], status: str) -> dict[str, Any]:
        return {"id": self.id, "content": content, "role": "assistant", "status": status, "type": "message", "phase": None}

    def _call(self, arguments: str, status: str) -> dict[str, Any]:
        call = self._ask.call
        name, ident = (call.name, call.message["id"]) if call is not None else ("", "")
        return {
            "arguments": arguments,
            "call_id": ident,
            "name": name,
            "type": "function_call",
            "id": self.id,
            "async": None,
            "caller": None,
            "namespace": None,
            "status": status,
        }


def _entry(token: int, logprob: float) -> dict[str, Any]:
    text = token_text(token)
    return {"token": text, "bytes": list(text.encode()), "logprob": logprob}
