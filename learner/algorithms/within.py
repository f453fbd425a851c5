"""Statistics of rewards within their groups: `values` [B] and the group 0..G-1 of each, `group` [B]."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def count(group: Tensor) -> Tensor:
    """Members of each group [G]."""
    return group.bincount()


def total(values: Tensor, group: Tensor) -> Tensor:
    """Sum of each group [G]."""
    return values.new_zeros(len(count(group))).index_add(0, group, values)


def mean(values: Tensor, group: Tensor) -> Tensor:
    """Mean of each group [G]."""
    return total(values, group) / count(group)


def zero_if_equal(advantages: Tensor, rewards: Tensor, group: Tensor) -> Tensor:
    """`advantages`, exactly zero where all rewards of a group are equal (one answer: always).

    Such a group compares nothing. What a formula leaves there is the rounding error of its mean, and dividing it by epsilon would
    make a signal of it.
    """
    empty = rewards.new_zeros(len(count(group)))
    highest = empty.scatter_reduce(0, group, rewards, "amax", include_self=False)
    lowest = empty.scatter_reduce(0, group, rewards, "amin", include_self=False)
    return advantages.where((highest > lowest)[group], advantages.new_zeros(()))
