"""Pipelines: the layers of a serial net on several workers, which compute different micro-batches at the same time."""
