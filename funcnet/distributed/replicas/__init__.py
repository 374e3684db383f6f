"""Data parallelism: every worker has all params, and its own rows of the batch."""
