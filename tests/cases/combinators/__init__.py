"""Layers from layers."""

from cases.combinators import axes, composition, weights

CASES = {**composition.CASES, **weights.CASES, **axes.CASES}
