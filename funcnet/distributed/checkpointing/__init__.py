"""Checkpoints that all workers write, and any number of workers reads."""
