"""Sharding: each worker has pieces of the params, or of the optimizer's state."""
