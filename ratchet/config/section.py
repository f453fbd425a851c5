"""What every part of the YAML has in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from ratchet import names


def _name(text: str) -> str:
    if not names.is_name(text):
        raise ValueError("a name is 1-63 of a-z 0-9 . _ - and starts with a letter or digit")
    return text


Name = Annotated[str, AfterValidator(_name)]


class Section(BaseModel):
    """A part of the YAML: unknown keys refused, values fixed once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
