"""Params with gaps between their elements, such as a column of a matrix, give the results of contiguous ones."""

import torch
from cases import CASES

import funcnet as fn


def with_gaps(leaf):
    return torch.stack([leaf, torch.full_like(leaf, 3)], -1)[..., 0] if leaf.dim() and leaf.numel() else leaf


def difference(case):
    """Return the largest difference of y and of the gradients, absolute up to 1 and relative above."""
    rng, found = fn.key(0) if case.layer.stochastic else None, []
    for params in (case.params, fn.tree.map(with_gaps, case.params)):
        y, cache = case.layer.apply(params, case.x, rng)
        gy = fn.tree.map(lambda leaf: torch.ones_like(leaf) if leaf.is_floating_point() else leaf, y)
        found.append(fn.tree.leaves((y, case.layer.vjp(params, cache, gy))))
    pairs = [(a, b) for a, b in zip(*found, strict=True) if a.numel() and a.is_floating_point()]
    return max([float(((a - b).abs() / (1 + a.abs())).nan_to_num().max()) for a, b in pairs], default=0.0)


def test_params_with_gaps():
    """Every layer of the catalogue is tried: torch's kernels of group norm, and of batch norm in evaluation, ignore the gaps."""
    assert [name for name, case in CASES.items() if fn.tree.leaves(case.params) and difference(case) > 1e-4] == []
