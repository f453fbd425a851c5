"""How a version gets onto the replicas and old ones off them, and what it was made of."""
