"""Extremes: values and gradients at infinities, tails, subnormal and huge numbers; errors in ulps of a 100-digit reference.

``python -m examples.extremes`` prints the tables and writes them to docs/extremes.md. A family is a module here with a list
``ROWS`` of ``Row``, in ``FAMILIES`` of ``tables``.
"""
