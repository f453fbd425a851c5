"""The seam of the engines: the gateway names no field, route or default that is an engine's own, and no kind of engine."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ratchet.config import ENGINES
from tests.unit.project.source_tree import imports, modules, parsed

SCHEMA, FORMS = "gateway/dialects/schema.py", "gateway/dialects/forms.py"
"""Where the client's own fields are declared; some of them come from the engines, and a client may use them."""
CHAT, TEXT, MESSAGES, FITNESS = (f"gateway/dialects/{name}.py" for name in ("chat", "text", "messages", "fitness"))
"""Where the client's fields are read."""
EXCHANGE = "gateway/relay/exchange.py"
ENGINES_OWN: dict[str, tuple[str, set[str]]] = {
    r"load_lora_adapter|unload_lora_adapter|lora_name|lora_path|load_inplace": ("vLLM's and SGLang's way to load an adapter", set()),
    r"lora_request|lora_adapters|lora-adapters": ("llama.cpp's and vLLM's ways to name one", set()),
    r"return_token_ids": ("asks vLLM, SGLang and LMDeploy for ids; a client may ask for them itself", {SCHEMA, CHAT, TEXT}),
    r"token_ids|prompt_token_ids": ("vLLM's fields with ids; of a recorded choice it is an attribute", {EXCHANGE}),
    r"output_token_logprobs|output_ids|input_ids|response_token_ids": ("SGLang's and LMDeploy's ids and log-probs", set()),
    r"sglext\w*|x-sglext\S*|return_\w+_in_sglext": ("SGLang's frame of ids", set()),
    r"return_tokens|post_sampling_probs|apply-template|n_predict": ("llama.cpp's", set()),
    r"return_logprob": ("LMDeploy's and SGLang's wish for log-probs", set()),
    r"processed_logprobs|raw_logprobs|logprobs_mode": ("what vLLM's log-probs are of", set()),
    r"vllm:\w*|sglang:\w*": ("their metrics", set()),
    r"min_p": ("a parameter beyond OpenAI's, with an engine's own default", {SCHEMA, FORMS, FITNESS}),
    r"repetition_penalty": ("the same", {SCHEMA, FORMS, FITNESS}),
    r"top_k": ("the same; Anthropic's too", {SCHEMA, FORMS, FITNESS, MESSAGES}),
    r"prompt_tokens_details|stop_reason|kv_transfer_params|token_logprobs": ("fields of vLLM's answers", set()),
    r"include_usage": ("OpenAI's: a client's wish, and what engines are asked for", {SCHEMA, CHAT}),
    r"-?9999(\.0)?": ("vLLM's stand-in for a missing log-prob", set()),
}
"""Patterns of whole words, whose they are, and the files where the client's side or our records need them."""


def words(path: Path) -> Iterator[tuple[int, str]]:
    """Every name, attribute, keyword, field, string and number in a file's code, but for docstrings; strings are split into words."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(parsed(path)):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Name):
            yield line, node.id
        elif isinstance(node, ast.Attribute):
            yield line, node.attr
        elif isinstance(node, ast.keyword | ast.arg) and node.arg:
            yield line, node.arg
        elif isinstance(node, ast.Constant) and id(node) not in docstrings:
            text = node.value.decode("latin-1") if isinstance(node.value, bytes) else str(node.value)
            yield from ((line, word) for word in re.split(r"[^\w.:/-]+", text))


@pytest.mark.parametrize("pattern", ENGINES_OWN)
def test_the_gateway_names_no_field_of_an_engines_own(pattern: str) -> None:
    rule, (_, allowed) = re.compile(pattern), ENGINES_OWN[pattern]
    found = {(str(path), line, word) for path in modules("gateway") for line, word in words(path) if rule.fullmatch(word)}
    assert not [place for place in found if place[0] not in allowed]
    assert {place[0] for place in found} == allowed  # no exception is left over


def test_only_an_engines_own_folder_and_what_installs_it_name_its_module() -> None:
    folders = tuple(f"engines.{kind}" for kind in ENGINES.names())
    users = {
        (str(path), name)
        for path in modules("ratchet", "gateway", "engines", "learner")
        for name in imports(path)
        if name.startswith(folders) and path.parts[:2] != tuple(name.split(".")[:2])
    }
    # The fake speaks vLLM's routes, and so uses vLLM's control plane and wire.
    assert {user for user in users if user[0] != "engines/fake/kind.py"} == set()
