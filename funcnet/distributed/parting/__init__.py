"""Tensor parallelism: each worker computes its part of every layer."""
