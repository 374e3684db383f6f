"""Fitting: the training loop, its data, callbacks and history."""
