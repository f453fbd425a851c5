"""The inference routes, one file for each family; `relay` serves them all."""

from gateway.dialects.base import Ask, Dialect
from gateway.dialects.every import every

__all__ = ["Ask", "Dialect", "every"]
