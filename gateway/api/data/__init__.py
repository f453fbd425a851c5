"""The data plane's routes that no engine answers."""
