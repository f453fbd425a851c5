"""The weights of a policy: model, adapter, optimiser, and their checkpoints."""
