"""The request bodies of all routes other than OpenAI's chat and text completions. Unknown keys are refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from gateway.dialects.schema import (
    INT32,
    LongIds,
    Message,
    Metadata,
    Model,
    Penalty,
    Prompt,
    Repetition,
    Share,
    Short,
    Strict,
    Temperature,
    Text,
    TokenIds,
    Tokens,
    Tool,
    TopK,
)

Item = dict[str, Any]
Count = Annotated[int, Meta(ge=0, le=INT32)]
Texts = Text | Annotated[list[Text], Meta(min_length=1, max_length=2048)]


class Reasoning(Strict):
    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None


class TextFormats(Strict):
    """`format` has one of three types; the engine checks the schema in it."""

    format: dict[str, Any] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class FunctionTool(Strict):
    type: Literal["function"]
    name: Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


class ChosenFunction(Strict):
    type: Literal["function"]
    name: Short


class ResponseStreamOptions(Strict):
    include_obfuscation: bool | None = None


class ResponsesRequest(Strict, kw_only=True):
    """`POST /v1/responses`."""

    model: Model
    input: Text | Annotated[list[Item], Meta(min_length=1, max_length=4096)]
    include: list[Literal["message.output_text.logprobs", "reasoning.encrypted_content"]] | None = None
    instructions: Text | None = None
    max_output_tokens: Tokens | None = None
    max_tool_calls: Tokens | None = None
    metadata: Metadata | None = None
    parallel_tool_calls: bool | None = None
    previous_response_id: Short | None = None
    prompt_cache_key: Short | None = None
    prompt_cache_retention: Literal["in_memory", "in-memory", "24h"] | None = None
    reasoning: Reasoning | None = None
    safety_identifier: Short | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority"] | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    temperature: Temperature | None = None
    text: TextFormats | None = None
    tool_choice: Literal["none", "auto", "required"] | ChosenFunction | None = None
    tools: Annotated[list[FunctionTool], Meta(max_length=128)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    top_p: Share | None = None
    truncation: Literal["auto", "disabled"] | None = None
    user: Short | None = None
    # Of the engines, not of OpenAI's reference.
    frequency_penalty: Penalty | None = None
    ignore_eos: bool | None = None
    include_stop_str_in_output: bool | None = None
    min_p: Share | None = None
    presence_penalty: Penalty | None = None
    repetition_penalty: Repetition | None = None
    seed: int | None = None
    skip_special_tokens: bool | None = None
    stop: Text | Annotated[list[Text], Meta(max_length=4)] | None = None
    stop_token_ids: TokenIds | None = None
    top_k: TopK | None = None


class AnthropicMessage(Strict):
    role: Literal["user", "assistant"]
    content: Text | Annotated[list[Item], Meta(max_length=4096)]


class AnthropicTool(Strict):
    name: Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_-]{1,128}$")]
    input_schema: dict[str, Any]
    description: str | None = None
    type: Literal["custom"] | None = None
    cache_control: dict[str, Any] | None = None


class AnthropicChoice(Strict):
    type: Literal["auto", "any", "tool", "none"]
    name: Short | None = None
    disable_parallel_tool_use: bool | None = None


class MessagesRequest(Strict, kw_only=True):
    """`POST /v1/messages`, Anthropic's form."""

    model: Model
    messages: Annotated[list[AnthropicMessage], Meta(min_length=1)]
    max_tokens: Tokens
    metadata: Metadata | None = None
    stop_sequences: Annotated[list[Text], Meta(max_length=4)] | None = None
    stream: bool | None = None
    system: Text | list[Item] | None = None
    temperature: Annotated[float, Meta(ge=0, le=1)] | None = None
    tool_choice: AnthropicChoice | None = None
    tools: Annotated[list[AnthropicTool], Meta(max_length=128)] | None = None
    top_k: Count | None = None
    top_p: Share | None = None
    store: bool | None = None


class EmbeddingsRequest(Strict, kw_only=True):
    """`POST /v1/embeddings`."""

    model: Model
    input: Prompt
    dimensions: Tokens | None = None
    encoding_format: Literal["float", "base64"] | None = None
    user: Short | None = None
    add_special_tokens: bool | None = None
    truncate_prompt_tokens: Annotated[int, Meta(ge=-1, le=INT32)] | None = None


class RerankRequest(Strict, kw_only=True):
    """`POST /v1/rerank`, the form Jina and Cohere share."""

    model: Model
    query: Text
    documents: Annotated[list[Text], Meta(min_length=1, max_length=2048)]
    top_n: Count | None = None
    truncate_prompt_tokens: Annotated[int, Meta(ge=-1, le=INT32)] | None = None
    max_tokens_per_doc: Count | None = None


class ScoreRequest(Strict, kw_only=True):
    """`POST /v1/score`: `text_1` against `text_2`, or `queries` against `documents`."""

    model: Model
    text_1: Texts | None = None
    text_2: Texts | None = None
    queries: Texts | None = None
    documents: Texts | None = None
    truncate_prompt_tokens: Annotated[int, Meta(ge=-1, le=INT32)] | None = None


class TokenizeRequest(Strict, kw_only=True):
    """`POST /tokenize`: a `prompt` or `messages`."""

    model: Model
    prompt: Text | None = None
    messages: Annotated[list[Message], Meta(min_length=1)] | None = None
    add_generation_prompt: bool | None = None
    add_special_tokens: bool | None = None
    continue_final_message: bool | None = None
    return_token_strs: bool | None = None
    tools: Annotated[list[Tool], Meta(max_length=128)] | None = None


class DetokenizeRequest(Strict, kw_only=True):
    """`POST /detokenize`."""

    model: Model
    tokens: LongIds
