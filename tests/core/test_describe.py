"""``tree.describe``: the statistics of each leaf."""

import math

import pytest
import torch

import funcnet as fn
from funcnet import random, tree


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64])
def test_statistics_are_those_of_torch(dtype: torch.dtype) -> None:
    """All statistics are computed in float64, whatever the dtype."""
    x = (10 * random.normal(0, (7, 5), dtype=torch.float64)).to(dtype)
    found, wide = tree.describe({"w": x})["w"], x.double()
    assert found.shape == (7, 5)
    assert found[1:5] == tuple(map(float, (wide.mean(), wide.std(), wide.min(), wide.max())))
    assert (found.nans, found.zeros) == (0, int((x == 0).sum()))


def test_nans_are_counted_and_left_out() -> None:
    """Infinities count as numbers, a single number has no spread, and an empty leaf has no statistics."""
    found = tree.describe(([torch.tensor([1.0, math.nan, 3.0, 0.0, -0.0])], torch.tensor(2.0), torch.tensor([math.inf, 1.0])))
    assert found["0.0"][1:] == (1.0, math.sqrt(2), 0.0, 3.0, 1, 2)
    assert found["1"][1:] == (2.0, 0.0, 2.0, 2.0, 0, 0)
    assert (found["2"].mean, found["2"].max) == (math.inf, math.inf)
    for empty, nans in ((torch.ones(0, 3), 0), (torch.full((2,), math.nan), 2)):
        assert all(map(math.isnan, tree.describe(empty)[""][1:5]))
        assert tree.describe(empty)[""].nans == nans


def test_paths_are_those_of_the_tree() -> None:
    """Absent leaves are left out, and tensors may require gradients."""
    net = fn.serial(fn.Linear(3, 2), fn.BatchNorm1d(2))
    params = tree.replace(net.init(0), "0.bias", None)
    assert [*tree.describe(params)] == [*tree.names(params)]
    params = tree.map(lambda leaf: leaf.requires_grad_() if leaf.is_floating_point() else leaf, params)
    assert tree.describe(params)["1.weight"].mean == 1.0


TABLE = """\
path      shape   mean  std    min  max  NaNs  zeros
0.weight  (2, 3)   0.5    0    0.5  0.5     0      0
0.bias    (2,)       0    2  -1.41    1     1      0"""


def test_a_description_prints_as_a_table() -> None:
    """Numbers have four digits; words are aligned left, numbers right."""
    found = tree.describe(({"weight": torch.full((2, 3), 0.5), "bias": torch.tensor([-1.41, math.nan])},))
    bias = found["0.bias"]._replace(mean=0.0, std=2.0, max=1.0, min=-1.41)
    found["0.bias"] = bias
    assert repr(found) == str(found) == TABLE
    assert str(tree.describe({})) == "path  shape  mean  std  min  max  NaNs  zeros"
