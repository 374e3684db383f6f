"""Combinators."""

from cases.combinators import axes, composition, rules, weights

CASES = {**composition.CASES, **weights.CASES, **axes.CASES, **rules.CASES}
