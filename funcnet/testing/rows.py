"""Rows: compare a batch with its single rows, and check an empty batch."""

import functools
from typing import Any

import torch

from funcnet import random, tree
from funcnet.contract import Layer, Params
from funcnet.flattening import Tree
from funcnet.random.keys import Key
from funcnet.testing.comparison import check_equal, check_kept, check_mirrored, everything, named, noise_like, require, run
from funcnet.testing.precision import moves_of


def check_rows(layer: Layer, p: Params, x: Any, rng: Key | int, dtype: torch.dtype) -> None:
    """Require that a single row gives the same results as within the batch, and that an empty batch gives zeros."""
    sizes = {leaf.shape[0] if leaf.dim() > leaf.is_floating_point() else None for leaf in tree.leaves(x)}
    n = sizes.pop()
    if n is None or sizes:
        return
    y = run(layer, p, x, rng)[0]
    has_rows = all(leaf.dim() > 0 and leaf.shape[0] == n for leaf in tree.leaves(y))
    _check_empty(layer, p, x, y if has_rows else None, rng)
    settled = layer.inference() if layer.stochastic else layer
    if has_rows and not settled.batch_dependent and not settled.stochastic:
        _check_each(settled, p, x, noise_like(y, random.fold_in(rng, 1)), n, dtype)


def _slice(values: Tree, start: int, stop: int) -> Tree:
    return tree.map(lambda leaf: leaf[start:stop], values)


def _check_empty(layer: Layer, p: Params, x: Any, y: Any, rng: Key | int) -> None:
    """Check an empty batch; ``y`` gives the expected shape without rows, and is ``None`` if there are no rows."""
    empty = _slice(x, 0, 0)
    nothing = run(layer, p, empty, rng)[0]
    results = everything(layer, p, empty, noise_like(nothing, rng), rng)
    check_mirrored(layer, named((p, empty)), named((results["params"], results["x"])))
    if y is not None:
        check_kept(layer, "of an empty batch,", {"y": nothing}, {"y": _slice(y, 0, 0)})
    for path, leaf in tree.names({"params": results["params"], "grads": results["grads"]}).items():
        require(not leaf.any(), layer, f"the gradients of params must be 0 for an empty batch, but {path} is not")


def _check_each(layer: Layer, p: Params, x: Any, gy: Any, n: int, dtype: torch.dtype) -> None:
    y, cache = layer.apply(p, x)
    whole = {**named(layer.vjp(p, cache, gy)), "y": y}
    total = tree.cast(tree.zeros_like(whole["params"]), torch.float64)  # half precision would round after each row
    for i in range(n):
        xi, gi = _slice(x, i, i + 1), _slice(gy, i, i + 1)
        y, cache = layer.apply(p, xi)
        gparams, gx = layer.vjp(p, cache, gi)
        total = tree.add(total, gparams)
        row = _slice({"y": whole["y"], "x": whole["x"]}, i, i + 1)
        moves = functools.partial(moves_of, layer, (p, xi, gi), 0, dtype)
        check_equal(
            layer, f"row {i} must give the same results alone as in the batch", {"y": y, "x": gx}, row, scale=(x, gy), moves=moves
        )
    got = {"params": tree.map(lambda summed, like: summed.to(like), total, whole["params"])}
    moves = functools.partial(moves_of, layer, (p, x, gy), 0, dtype)
    rule = "params' gradients must add up over rows"
    check_equal(layer, rule, got, {"params": whole["params"]}, scale=(x, gy), moves=moves)
