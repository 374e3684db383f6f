"""Statistics: a short description of the numbers of a tensor, and of a tree as a table."""

from typing import NamedTuple

import torch
from torch import Tensor

from funcnet.errors import describe, value_error
from funcnet.markup import element, output, table
from funcnet.tables import aligned

_HEADER = ("path", "shape", "mean", "std", "min", "max", "NaNs", "zeros")


class Statistics(NamedTuple):
    """The statistics of a tensor; all except ``shape``, ``nans`` and ``zeros`` ignore NaN.

    Args:
        shape: Shape of the tensor.
        mean: Mean of the elements.
        std: Standard deviation of the elements, with n - 1 in the denominator.
        min: Smallest element.
        max: Largest element.
        nans: Number of NaNs.
        zeros: Number of zeros.
    """

    shape: tuple[int, ...]
    mean: float
    std: float
    min: float
    max: float
    nans: int
    zeros: int


class Description(dict[str, Statistics]):
    """Statistics by path; they print as a table."""

    def __repr__(self) -> str:
        return "\n".join(aligned([_HEADER, *self._rows()], 2))

    def _repr_html_(self) -> str:
        return output(element("div", table(_HEADER, self._rows(), words=2), class_="scroll"))

    def _rows(self) -> list[tuple[str, ...]]:
        return [(path, str(one.shape), *[f"{n:.4g}" for n in one[1:5]], *map(str, one[5:])) for path, one in self.items()]


def statistics_of(path: str, leaf: Tensor) -> Statistics:
    """Return the statistics of the tensor at a path, in float64; NaN if there are no numbers.

    Raises:
        ValueError: For complex numbers, and on the meta device.
    """
    if leaf.is_complex() or leaf.is_meta:
        raise value_error("describe", "every leaf must hold real numbers", describe(leaf) + f" at {path!r}" * bool(path))
    leaf = leaf.detach().double()
    missing = leaf.isnan()
    numbers = leaf[~missing]
    nans, zeros = int(missing.sum()), int((leaf == 0).sum())
    if not numbers.numel():
        return Statistics(tuple(leaf.shape), torch.nan, torch.nan, torch.nan, torch.nan, nans, zeros)
    std = numbers.std(correction=min(1, numbers.numel() - 1))
    mean, deviation, low, high = torch.stack([numbers.mean(), std, numbers.min(), numbers.max()]).tolist()
    return Statistics(tuple(leaf.shape), mean, deviation, low, high, nans, zeros)
