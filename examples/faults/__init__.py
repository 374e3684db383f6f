"""Faults: a small training is killed, interrupted, and fed NaN; it runs out of disk space, and its checkpoints are damaged.

Among workers that train together, one is killed, hangs, starts with different params, or loses write permission.

``python -m examples.faults`` tries all faults, prints a table and writes it to docs/faults.md. A group of faults is a module of
this package with a function for each row of the table.
"""
