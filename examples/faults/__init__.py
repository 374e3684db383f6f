"""Faults: a small training is killed, runs out of disk space, is interrupted and fed NaN, and its checkpoints are damaged.

Workers that train together are killed, hang, start with other params, and lose write permission.

``python -m examples.faults`` tries them all, prints a table and writes it to docs/faults.md. A group of faults is a module here
with a function for each row of the table.
"""
