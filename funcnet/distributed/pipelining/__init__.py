"""Pipelines: the layers of a serial net over several workers, which compute different micro-batches at the same time."""
