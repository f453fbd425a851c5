"""The routes that no engine answers, and the table of all routes."""
