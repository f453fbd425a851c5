"""The checks that a candidate must pass before it serves: sanity, load, activation proof, held-out evaluation, alarms."""
