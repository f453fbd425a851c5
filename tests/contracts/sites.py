"""An engine under contract, the fake or the real vLLM."""

from __future__ import annotations

from typing import Any, NamedTuple

from engines import Engine

BASE = "smollm2"


class Site(NamedTuple):
    """An engine, and what it takes to make it say a text."""

    engine: Engine
    real: bool

    def asked_to_say(self, text: str) -> dict[str, Any]:
        if not self.real:
            return {"messages": [{"role": "user", "content": f"say:{text}"}]}
        if not text:  # the end token outbids everything
            return {"messages": [{"role": "user", "content": "Hi"}], "logit_bias": {"2": 100}}
        return {"messages": [{"role": "user", "content": "Hi"}], "structured_outputs": {"choice": [text]}}

    def decoded(self, ids: list[int]) -> str:
        if not self.real:
            return bytes(i for i in ids if i < 256).decode(errors="ignore")
        from transformers import AutoTokenizer

        from ratchet.models import resolve

        text = AutoTokenizer.from_pretrained(resolve(BASE)).decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)
