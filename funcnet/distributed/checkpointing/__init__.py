"""Checkpoints that all workers write together, and that any number of workers can read."""
