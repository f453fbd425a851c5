"""Where the rewards of shadow groups and of held-out answers come from."""
