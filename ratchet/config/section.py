"""The base class of every section of the YAML."""

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
    """A section of the YAML. It refuses unknown keys and cannot be changed once it has been read."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
