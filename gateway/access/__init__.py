"""Authentication by API key, and quotas."""
