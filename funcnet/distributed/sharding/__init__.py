"""Sharding: each worker has pieces of params, or of the state of the optimizer."""
