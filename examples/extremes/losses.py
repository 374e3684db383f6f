"""Softmaxes."""

ROWS = []
