"""Exponents of cost: the slope of a line at its upper end, and the cost relative to another one.

If the cost is a + b nᵖ and three sizes grow by the same factor r, its increments grow by rᵖ:

    (y₃ - y₂) / (y₂ - y₁) = rᵖ

The exponent p therefore does not depend on a, the constant part of the cost.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from attrs import frozen

TOLERANCE = 0.05
"""The tolerance of exponents: 7 % more cost for four times the size."""

LEAST = {"time": 0.0, "memory": 4.0}
"""Points below these do not count for ratios; for fewer MB the allocator dominates."""

Points = dict[str, float]


def exponent(points: Points, sizes: Sequence[str]) -> float | None:
    """Return the exponent over three sizes; ``None`` if the cost does not grow between two of them."""
    if len(sizes) < 3:
        return None
    one, two, three = (points[n] for n in sizes)
    if not one < two < three:
        return None
    return math.log((three - two) / (two - one)) / math.log(int(sizes[2]) / int(sizes[1]))


def upper_end(*lines: Points) -> list[str]:
    """Return the three largest sizes that all lines have, or fewer if they do not grow by the same factor."""
    sizes = [n for n in lines[0] if all(n in line for line in lines)][-3:]
    even = len(sizes) == 3 and int(sizes[1]) ** 2 == int(sizes[0]) * int(sizes[2])
    return sizes if even else sizes[-2:]


@frozen
class Comparison:
    """Two contenders on an axis: exponents of each run, and the ratio of cost at each common size."""

    sizes: tuple[str, ...]
    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    ratios: dict[str, float]

    @property
    def noise(self) -> float | None:
        """Return the larger difference between runs of the same contender."""
        apart = [max(column) - min(column) for column in (self.ours, self.theirs) if len(column) > 1]
        return max(apart) if apart else None

    @property
    def verdict(self) -> str:
        """Return whether our exponent is above theirs for every pair of runs."""
        if not self.ours or not self.theirs:
            return "—"
        return "above" if min(self.ours) - max(self.theirs) > TOLERANCE else "not above"

    @property
    def worst(self) -> str | None:
        """Return the size with the largest ratio."""
        return max(self.ratios, key=lambda n: self.ratios[n], default=None)


def compare(found: dict[str, Any], what: str, ours: str, theirs: str) -> Comparison | None:
    """Compare two contenders; ``None`` if one has no points."""
    one, other = found[what].get(ours), found[what].get(theirs)
    if not one or not other:
        return None
    sizes = upper_end(one, other)
    first, second = [tuple(_of_runs(found, what, name, sizes)) for name in (ours, theirs)]
    least = LEAST[what]
    ratios = {n: one[n] / other[n] for n in one if n in other and max(one[n], other[n]) >= least}
    return Comparison(tuple(sizes), first, second, ratios)


def _of_runs(found: dict[str, Any], what: str, name: str, sizes: Sequence[str]) -> Iterator[float]:
    """Yield the exponent of each run."""
    runs = [found[key] for key in found if key.startswith(f"{what}, run") and found[key]] or [found[what]]
    for run in runs:
        got = exponent(run[name], sizes) if all(n in run.get(name, {}) for n in sizes) else None
        if got is not None:
            yield got
