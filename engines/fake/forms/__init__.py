"""The forms of the fake engine's answers, one file a route."""
