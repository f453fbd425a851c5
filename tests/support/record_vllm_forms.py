"""Write recorded/forms.json: what vLLM 0.32's own code makes of the fake's tokens.

Run as `python -m tests.support.record_vllm_forms`.

No model runs: the serving classes are made without their engine, and are handed the tokens as the engine would.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

from vllm.entrypoints.anthropic.serving import AnthropicServingMessages
from vllm.entrypoints.generate.base.protocol import DeltaMessage, FunctionCall
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionResponse
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.openai.completion.serving import OpenAIServingCompletion
from vllm.entrypoints.openai.responses.api_router import _convert_stream_to_sse_events
from vllm.entrypoints.openai.responses.context import SimpleContext
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.entrypoints.openai.responses.serving import OpenAIServingResponses
from vllm.entrypoints.pooling.embed.protocol import EmbeddingResponse, EmbeddingResponseData
from vllm.entrypoints.pooling.scoring.protocol import (
    RerankDocument,
    RerankResponse,
    RerankResult,
    RerankUsage,
    ScoreResponse,
    ScoreResponseData,
)
from vllm.entrypoints.serve.engine.protocol import UsageInfo
from vllm.entrypoints.serve.tokenize.protocol import DetokenizeResponse, TokenizeResponse
from vllm.logprobs import Logprob
from vllm.outputs import CompletionOutput, RequestOutput

from engines.fake import answers, asks, model, pooling
from engines.fake.forms.base import FINGERPRINT, likeliest
from engines.fake.forms.chats import ChatForm, delta
from tests.support.vllm_samples import FOLDER, FORMS, IDENT, REQUESTS


async def nothing(_: int) -> None:
    """The pace of one who does not wait."""


def outputs(ask: asks.Ask, token: answers.Token, top: int) -> RequestOutput:
    """A token as the engine hands it over."""
    found = {ident: Logprob(value, None, model.token_text(ident)) for ident, value in likeliest(token, max(1, top))}
    index, prompt = token.choice % ask.n, ask.prompts[token.choice // ask.n]
    part = CompletionOutput(index, token.text, [token.id], None, [found], finish_reason=token.finish, stop_reason=token.stop)
    return RequestOutput("x", model.text_of(prompt), prompt, None, [part], token.finish is not None)


async def text(tree: dict[str, Any], stream: bool) -> str:
    request, ask, serving = CompletionRequest(**tree), asks.of_text(tree), object.__new__(OpenAIServingCompletion)
    serving.__dict__ |= {"enable_force_include_usage": False, "system_fingerprint": FINGERPRINT, "return_tokens_as_token_ids": False}
    serving.__dict__ |= {"enable_prompt_tokens_details": False, "enable_per_request_metrics": False}
    drawn = [token async for token in answers.tokens(ask, nothing)]
    top, meta = int(ask.logprobs or 0), SimpleNamespace()
    if stream:

        async def given() -> AsyncIterator[tuple[int, RequestOutput]]:
            for token in drawn:
                yield token.choice // ask.n, outputs(ask, token, top)

        made = serving.completion_stream_generator(request, [], given(), IDENT, 1, ask.model, len(ask.prompts), None, meta)
        return "".join([piece async for piece in made])
    finals = []
    for at, prompt in enumerate(ask.prompts):
        parts = []
        for index in range(ask.n):
            own = [outputs(ask, token, top).outputs[0] for token in drawn if token.choice == at * ask.n + index]
            joined = "".join(part.text for part in own)
            ids, probs = [part.token_ids[0] for part in own], [part.logprobs[0] for part in own]
            end = own[-1]
            parts.append(CompletionOutput(index, joined, ids, None, probs, finish_reason=end.finish_reason, stop_reason=end.stop_reason))
        finals.append(RequestOutput("x", model.text_of(prompt), prompt, None, parts, True))
    return dumped(serving.request_output_to_completion_response(finals, request, IDENT, 1, ask.model, None, meta))


class Parser:
    """In a tool parser's place: the fake's own word on what is a call."""

    reasoning_parser = None

    def __init__(self, ask: asks.Ask, drawn: list[answers.Token]) -> None:
        self._ask, self._remaining = ask, list(drawn)

    def parse_delta(self, **_: Any) -> DeltaMessage:
        return DeltaMessage.model_validate(delta(self._ask, self._remaining.pop(0)))

    def parse(self, *_: Any, **__: Any) -> Any:
        call = self._ask.call
        return None, None, [FunctionCall(id=call.message["id"], name=call.name, arguments=call.arguments)] if call else None

    def count_reasoning_tokens(self, _: Any) -> int:
        return 0


async def response(tree: dict[str, Any], stream: bool) -> str:
    request, ask, serving = ResponsesRequest(**tree), asks.of_response(tree), object.__new__(OpenAIServingResponses)
    request.store = False
    serving.__dict__ |= {"use_harmony": False, "enable_log_outputs": False, "request_logger": None, "return_tokens_as_token_ids": False}
    serving.__dict__ |= {"enable_per_request_metrics": False, "enable_auto_tools": True, "tool_server": None}
    drawn = [token async for token in answers.tokens(ask, nothing)]
    context = SimpleContext(response_parser=Parser(ask, drawn) if ask.call is not None else None)

    async def given() -> AsyncIterator[SimpleContext]:
        for token in drawn:
            context.append_output(outputs(ask, token, ask.top_logprobs or 0))
            yield context

    rest = (request, request.to_sampling_params(ask.limit), given(), context, ask.model, None, SimpleNamespace(), 1)
    if stream:
        return "".join([event async for event in _convert_stream_to_sse_events(serving.responses_stream_generator(*rest))])
    return dumped(await serving.responses_full_generator(*rest), mode="json", by_alias=True)


async def message(tree: dict[str, Any], stream: bool) -> str:
    ask, serving = asks.of_message(tree), object.__new__(AnthropicServingMessages)
    ask.stream_options = {"include_usage": True}
    form = ChatForm(ask, IDENT)
    drawn = [token async for token in answers.tokens(ask, nothing)]
    if not stream:
        return dumped(serving.messages_full_converter(ChatCompletionResponse(**form.whole(drawn))), exclude_none=True)

    async def chunks() -> AsyncIterator[str]:
        first = json.loads(form.opening(0))
        yield "data: " + json.dumps({**first, "usage": form.usage(0)})  # as `continuous_usage_stats` adds it
        for piece in [*(form.token(token) for token in drawn), *form.last().split(b"\n\n")[:-1]]:
            yield piece.decode()

    return "".join([piece async for piece in serving.message_stream_converter(chunks())])


async def pooled(tree: dict[str, Any], path: str) -> str:
    answer = pooling.ROUTES[path](tree, IDENT, tree["model"])
    if path == "/tokenize":
        return dumped(TokenizeResponse(**answer))
    if path == "/detokenize":
        return dumped(DetokenizeResponse(**answer))
    if path == "/v1/rerank":
        results = [RerankResult(**{**row, "document": RerankDocument(**row["document"])}) for row in answer["results"]]
        return dumped(RerankResponse(id=answer["id"], model=answer["model"], usage=RerankUsage(**answer["usage"]), results=results))
    kind, rows = (EmbeddingResponse, EmbeddingResponseData) if path == "/v1/embeddings" else (ScoreResponse, ScoreResponseData)
    usage = UsageInfo(prompt_tokens=answer["usage"]["prompt_tokens"], total_tokens=answer["usage"]["total_tokens"])
    return dumped(kind(id=answer["id"], created=1, model=answer["model"], data=[rows(**row) for row in answer["data"]], usage=usage))


def dumped(answer: Any, **options: Any) -> str:
    """As FastAPI's JSONResponse."""
    return json.dumps(answer.model_dump(**options), ensure_ascii=False, separators=(",", ":"))


async def made(path: str, tree: dict[str, Any]) -> str:
    tree = {"model": "smollm2", **tree}
    generating = {"/v1/completions": text, "/v1/responses": response, "/v1/messages": message}
    return await generating[path](tree, bool(tree.get("stream"))) if path in generating else await pooled(tree, path)


async def main() -> None:
    forms = {name: await made(path, tree) for name, (path, tree) in REQUESTS.items()}
    (FOLDER / FORMS).write_text(json.dumps(forms, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
