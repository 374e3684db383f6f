"""Extremes: errors of values and gradients at infinities, in tails, and for subnormal and huge numbers, in ulps.

``python -m examples.extremes`` prints the tables and writes them to docs/extremes.md. A family is a module of this package with a
list ``ROWS`` of ``Row``; ``tables.FAMILIES`` lists all families.
"""
