"""Publication: loading a version on the replicas, unloading old ones, and the lineage of a version."""
