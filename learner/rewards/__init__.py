"""Reward functions, which score shadow groups and held-out answers."""
