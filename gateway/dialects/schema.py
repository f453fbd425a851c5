"""`POST /v1/chat/completions` as OpenAI's reference documents it, plus the engine fields that are let through. Unknown keys
are refused.

msgspec checks types, ranges and names while it converts; `convert` turns its messages into OpenAI's errors.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

INT32 = 2**31 - 1
Text = Annotated[str, Meta(max_length=2**20)]
Short = Annotated[str, Meta(max_length=512)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Share = Annotated[float, Meta(ge=0, le=1)]
Tokens = Annotated[int, Meta(ge=1, le=INT32)]
FunctionName = Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
Metadata = Annotated[dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]], Meta(max_length=16)]
TokenIds = Annotated[list[Annotated[int, Meta(ge=0, le=INT32)]], Meta(max_length=1024)]


Model = Annotated[str, Meta(min_length=1, max_length=512)]
Temperature = Annotated[float, Meta(ge=0, le=2)]
Repetition = Annotated[float, Meta(gt=0, le=2)]
TopK = Annotated[int, Meta(ge=-1, le=INT32)]
TokenId = Annotated[int, Meta(ge=0, le=INT32)]
LongIds = Annotated[list[TokenId], Meta(min_length=1, max_length=131_072)]
Prompt = Text | Annotated[list[Text | TokenId | LongIds], Meta(min_length=1, max_length=131_072)]


class Strict(Struct, forbid_unknown_fields=True):
    """An object that refuses unknown keys."""


class TextPart(Strict, tag_field="type", tag="text"):
    text: str


class OnlyText(Strict):
    """A part where only text is accepted."""

    # Not a tag: msgspec does not require one outside a union.
    type: Literal["text"]
    text: str


class RefusalPart(Strict, tag_field="type", tag="refusal"):
    refusal: str


Content = str | list[OnlyText]


class Developer(Strict, tag_field="role", tag="developer"):
    content: Content
    name: Short | None = None


class System(Strict, tag_field="role", tag="system"):
    content: Content
    name: Short | None = None


class User(Strict, tag_field="role", tag="user"):
    content: Content
    name: Short | None = None


class CalledFunction(Strict):
    name: str
    arguments: str


class Call(Strict):
    function: CalledFunction
    id: str
    type: Literal["function"] = "function"
    index: int | None = None


class Assistant(Strict, tag_field="role", tag="assistant"):
    """An earlier answer, as clients send it back, with the nulls that the SDK adds."""

    content: str | list[TextPart | RefusalPart] | None = None
    refusal: str | None = None
    name: Short | None = None
    tool_calls: list[Call] | None = None
    function_call: CalledFunction | None = None
    audio: None = None
    annotations: list[Any] | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None


class ToolResult(Strict, tag_field="role", tag="tool"):
    content: Content
    tool_call_id: str


class FunctionResult(Strict, tag_field="role", tag="function"):
    content: str | None
    name: str


Message = Developer | System | User | Assistant | ToolResult | FunctionResult


class Function(Strict):
    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Strict):
    function: Function
    type: Literal["function"]


class Named(Strict):
    name: FunctionName


class ChosenTool(Strict, tag_field="type", tag="function"):
    function: Named


class Allowed(Strict):
    mode: Literal["auto", "required"]
    tools: list[dict[str, Any]]


class AllowedTools(Strict, tag_field="type", tag="allowed_tools"):
    allowed_tools: Allowed


class TextFormat(Strict, tag_field="type", tag="text"):
    pass


class JsonFormat(Strict, tag_field="type", tag="json_object"):
    pass


class JsonSchema(Strict):
    name: FunctionName
    description: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class SchemaFormat(Strict, tag_field="type", tag="json_schema"):
    json_schema: JsonSchema


class StreamOptions(Strict):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class Prediction(Strict):
    content: Content
    type: Literal["content"]


class StructuredOutputs(Strict):
    """vLLM's grammar; one of them."""

    json: str | dict[str, Any] | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None


class Sampled(Strict, kw_only=True):
    """What every generating route of OpenAI's form shares, the engines' own fields included."""

    model: Model
    frequency_penalty: Penalty | None = None
    logit_bias: dict[Annotated[str, Meta(pattern=r"^[0-9]{1,10}$")], Annotated[float, Meta(ge=-100, le=100)]] | None = None
    max_tokens: Tokens | None = None
    metadata: Metadata | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    presence_penalty: Penalty | None = None
    response_format: TextFormat | JsonFormat | SchemaFormat | None = None
    seed: int | None = None
    stop: Text | Annotated[list[Text], Meta(max_length=4)] | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Temperature | None = None
    top_p: Share | None = None
    user: Short | None = None
    # Of the engines, not of OpenAI's reference.
    allowed_token_ids: TokenIds | None = None
    bad_words: Annotated[list[Short], Meta(max_length=128)] | None = None
    ignore_eos: bool | None = None
    include_stop_str_in_output: bool | None = None
    min_p: Share | None = None
    min_tokens: Annotated[int, Meta(ge=0, le=INT32)] | None = None
    repetition_penalty: Repetition | None = None
    return_token_ids: bool | None = None
    skip_special_tokens: bool | None = None
    spaces_between_special_tokens: bool | None = None
    stop_token_ids: TokenIds | None = None
    structured_outputs: StructuredOutputs | None = None
    top_k: TopK | None = None


class ChatRequest(Sampled, kw_only=True):
    """`POST /v1/chat/completions`. The fields the gateway knows; the body goes on to the engine as the client wrote it."""

    messages: Annotated[list[Message], Meta(min_length=1)]
    function_call: Literal["none", "auto"] | Named | None = None
    functions: Annotated[list[Function], Meta(min_length=1, max_length=128)] | None = None
    logprobs: bool | None = None
    max_completion_tokens: Tokens | None = None
    modalities: list[Literal["text"]] | None = None
    parallel_tool_calls: bool | None = None
    prediction: Prediction | None = None
    prompt_cache_key: Short | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prompt_cache_retention: Literal["in_memory", "in-memory", "24h"] | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    safety_identifier: Short | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast"] | None = None
    tool_choice: Literal["none", "auto", "required"] | ChosenTool | AllowedTools | None = None
    tools: Annotated[list[Tool], Meta(max_length=128)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    web_search_options: dict[str, Any] | None = None
    # Of the engines, not of OpenAI's reference.
    chat_template_kwargs: Annotated[dict[Short, Any], Meta(max_length=16)] | None = None
    include_reasoning: bool | None = None


class TextRequest(Sampled, kw_only=True):
    """`POST /v1/completions`."""

    prompt: Prompt
    echo: bool | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    add_special_tokens: bool | None = None
