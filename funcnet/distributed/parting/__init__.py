"""Tensor parallel: each worker computes its part of every layer."""
