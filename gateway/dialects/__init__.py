"""One file a family of inference routes; `relay` serves them all."""

from gateway.dialects.base import Ask, Dialect
from gateway.dialects.every import every

__all__ = ["Ask", "Dialect", "every"]
