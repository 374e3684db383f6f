"""Faults: a small training is killed, starved of disk, interrupted and fed NaN, and its checkpoints are damaged bit by bit.

Workers that train together are killed, hang, begin with other params, and lose the right to write.

``python -m examples.faults`` tries them all, prints a table and writes it to docs/faults.md. A group of faults is a module here
with a function for each row of the table.
"""
