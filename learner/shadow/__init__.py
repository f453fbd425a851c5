"""Shadow groups: recorded prompts, resampled while the engines have spare capacity."""
