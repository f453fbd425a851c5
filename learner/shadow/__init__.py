"""Shadow groups: prompts that are resampled when the engines have room."""
