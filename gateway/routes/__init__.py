"""The data plane's endpoints other than the relay."""
