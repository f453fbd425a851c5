"""Finished answers on their way to the store, through a spool on disk while the store is away."""
