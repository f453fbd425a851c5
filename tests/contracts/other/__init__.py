"""The proof of the seam: an engine whose form is unlike vLLM's in each respect. `kind.py` is all that Ratchet has to know of it."""

from pathlib import Path

INSTALLED = Path(__file__).parent / "installed"
"""On a process's path, this is an installed package that declares the kind."""
