"""Other people's clients against a running gateway, each in its own environment (`make test-clients`)."""
