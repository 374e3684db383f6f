"""The benchmark of the border to autograd: all contenders compute the same. No test asserts on a time."""

import pytest
import torch

from examples.benchmarks import border


@pytest.mark.parametrize("case", [border.mlp, border.block])
def test_all_ways_through_a_net_give_the_same(case):
    """The gradients of x and of all parameters agree."""
    net, theirs, x = case()
    bare, module, reference = [work() for work in border.ways(net, theirs, x[:4]).values()]
    assert len(bare) == len(module) == len(reference)
    for one, other, want in zip(bare, module, reference, strict=True):
        assert torch.equal(one, other)
        torch.testing.assert_close(one, want, rtol=1e-3, atol=1e-3)


def test_the_table_has_a_row_for_each_case():
    """Each has three times and two quotients."""
    lines = [*border.border(rounds=1)]
    assert len(lines) == 4
    assert all(line.count("|") == 7 for line in lines)
