"""The algorithms, one file each: configuration, the examples it takes, advantages or targets, loss. `base` says what one is."""
