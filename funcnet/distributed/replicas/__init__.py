"""Data parallel: every worker has the params, and its own rows of the batch."""
