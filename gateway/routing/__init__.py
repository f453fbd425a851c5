"""Which replica answers: health, pointers, choice."""
