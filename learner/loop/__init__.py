"""The loop of one policy: which examples a step takes, the candidate it makes of them, the decision on that, and who may do it."""
