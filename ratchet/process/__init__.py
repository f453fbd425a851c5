"""Processes: children that never outlive their parent, their supervision, and what each part does when it starts."""

from ratchet.process.children import die_with_parent, free_port, kill_tree, spawn

__all__ = ["die_with_parent", "free_port", "kill_tree", "spawn"]
