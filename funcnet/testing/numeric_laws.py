"""Numeric laws: 1 transpose, 2 linear, 5 rows, 6 strides, 7 halves and 11 second order."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from funcnet import random, tree
from funcnet.contract import Layer, Params
from funcnet.random.keys import Key
from funcnet.testing.blame import Check, check_with_blame
from funcnet.testing.comparison import check_equal, everything, named, noise_like, prepared, require, run
from funcnet.testing.differences import check_vjp
from funcnet.testing.law_decorator import FLOAT64, law
from funcnet.testing.precision import check_precision, moves_of
from funcnet.testing.rows import check_rows
from funcnet.testing.second_order import check_second_order


@law(1, "transpose")
def law_transpose(
    layer: Layer, x: Any, params: Params | None = None, rng: Key | int = 0, *, dtype: torch.dtype = FLOAT64
) -> None:
    """Require that ``vjp`` is the transpose of the derivative J of ``apply``.

        ⟨gy, J v⟩ = ⟨vjp(gy), v⟩ for all v

    In float64, ``check_vjp`` computes J with differences; in a lower dtype, y and the gradients are compared with float64.

    Args:
        layer: The layer to check.
        x: An input for it, a tensor or a tree of tensors.
        params: Its params. By default fresh ones.
        rng: Key or seed for fresh params, and for ``apply`` of a stochastic layer.
        dtype: Floating dtype of params and x; a layer can use other kernels in another dtype.

    Raises:
        AssertionError: If the layer breaks the law.
    """
    if dtype is FLOAT64:
        check_vjp(layer, x, params, rng)
    else:
        check: Check = lambda one, p, given, key: check_precision(one, p, given, key, dtype)
        check_with_blame(check, layer, *prepared(layer, x, params, rng, dtype), rng)


@law(2, "linear")
def law_linear(layer: Layer, x: Any, params: Params | None = None, rng: Key | int = 0) -> None:
    """Require that ``vjp`` is linear in gy; for a surrogate, which can clip, require only vjp(0) = 0.

        vjp(2 g - 3 h) = 2 vjp(g) - 3 vjp(h)      vjp(0) = 0

    Args:
        layer: The layer to check.
        x: An input for it, a tensor or a tree of tensors.
        params: Its params. By default fresh ones.
        rng: Key or seed for fresh params, and for ``apply`` of a stochastic layer.

    Raises:
        AssertionError: If the layer breaks the law.
    """
    p, x = prepared(layer, x, params, rng)
    y, cache = run(layer, p, x, rng)
    g, h = (noise_like(y, random.fold_in(rng, seed)) for seed in (1, 2))
    for path, leaf in tree.names(named(layer.vjp(p, cache, tree.zeros_like(g)))).items():
        require(not leaf.any(), layer, f"vjp(0) must be 0, but the gradient of {path} is not")
    if layer.surrogate:
        return
    apart = tree.map(lambda a, b: 2 * a - 3 * b, layer.vjp(p, cache, g), layer.vjp(p, cache, h))
    together = layer.vjp(p, cache, tree.map(lambda a, b: 2 * a - 3 * b, g, h))
    check_equal(layer, "vjp(2 g - 3 h) must be 2 vjp(g) - 3 vjp(h)", named(together), named(apart), scale=g)


@law(5, "rows")
def law_rows(layer: Layer, x: Any, params: Params | None = None, rng: Key | int = 0, *, dtype: torch.dtype = FLOAT64) -> None:
    """Require that each row has the same y and gx in the batch as alone.

    The gradients of params must add up over the rows, and be 0 for an empty batch. x has rows if all its tensors have the same
    first size, and floating tensors have at least two axes. Single rows are not checked if the layer is ``batch_dependent`` or y
    has no rows; for a stochastic layer, ``inference()`` is checked.

    Args:
        layer: The layer to check.
        x: An input for it, a tensor or a tree of tensors.
        params: Its params. By default fresh ones.
        rng: Key or seed for fresh params, and for ``apply`` of a stochastic layer.
        dtype: Floating dtype of params and x; a layer can use other kernels in another dtype.

    Raises:
        AssertionError: If the layer breaks the law.
    """
    check_rows(layer, *prepared(layer, x, params, rng, dtype), rng, dtype)


@law(6, "strides")
def law_strides(layer: Layer, x: Any, params: Params | None = None, rng: Key | int = 0, *, dtype: torch.dtype = FLOAT64) -> None:
    """Require that transposed, strided and expanded x and gy give the same results as contiguous tensors.

    Args:
        layer: The layer to check.
        x: An input for it, a tensor or a tree of tensors.
        params: Its params. By default fresh ones.
        rng: Key or seed for fresh params, and for ``apply`` of a stochastic layer.
        dtype: Floating dtype of params and x; a layer can use other kernels in another dtype.

    Raises:
        AssertionError: If the layer breaks the law.
    """
    p, z = prepared(layer, x, params, rng, dtype)
    gy = noise_like(run(layer, p, z, rng)[0], random.fold_in(rng, 1))
    for name, layout in _LAYOUTS.items():
        for part, (a, g) in {"x": (tree.map(layout, z), gy), "gy": (z, tree.map(layout, gy))}.items():
            want = everything(layer, p, tree.map(_contiguous, a), tree.map(_contiguous, g), rng)
            rule = f"{name} {part} must give the same results as a contiguous one"
            moves = functools.partial(moves_of, layer, (p, a, g), rng, dtype)
            check_equal(layer, rule, everything(layer, p, a, g, rng), want, scale=(a, g), moves=moves)


def _contiguous(leaf: Tensor) -> Tensor:
    return leaf.clone(memory_format=torch.contiguous_format)


def _transpose(leaf: Tensor) -> Tensor:
    order = tuple(reversed(range(leaf.dim())))
    return leaf.permute(order).contiguous().permute(order)


_LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": _transpose,
    "strided": lambda leaf: torch.stack((leaf, (leaf + 1).to(leaf.dtype)), -1)[..., 0],
    "expanded": lambda leaf: leaf[:1].expand(leaf.shape) if leaf.dim() else leaf,
    "constant": lambda leaf: leaf.reshape(-1)[:1].reshape((1,) * leaf.dim()).expand(leaf.shape),
}


@law(7, "halves")
def law_halves(layer: Layer, x: Any, params: Params | None = None, rng: Key | int = 0, *, dtype: torch.dtype = FLOAT64) -> None:
    """Require that ``grads`` and ``input_grad`` are the halves of ``vjp``, and ``layer(params, x)`` is the y of ``apply``.

    Args:
        layer: The layer to check.
        x: An input for it, a tensor or a tree of tensors.
        params: Its params. By default fresh ones.
        rng: Key or seed for fresh params, and for ``apply`` of a stochastic layer.
        dtype: Floating dtype of params and x; a layer can use other kernels in another dtype.

    Raises:
        AssertionError: If the layer breaks the law.
    """
    p, x = prepared(layer, x, params, rng, dtype)
    gy = noise_like(run(layer, p, x, rng)[0], random.fold_in(rng, 1))
    found = everything(layer, p, x, gy, rng)
    for part, whole in {"grads": "params", "input_grad": "x", "layer(params, x)": "y"}.items():
        rule = f"{part} must be the {'output of apply' if whole == 'y' else 'half of vjp'}"
        check_equal(layer, rule, {whole: found[part]}, {whole: found[whole]}, scale=gy)


@law(11, "second order")
def law_second_order(
    layer: Layer, x: Any, params: Params | None = None, rng: Key | int = 0, *, dtype: torch.dtype = FLOAT64
) -> None:
    """Require that ``torch.func`` on ``apply`` agrees with ``vjp``, and differentiates ``vjp`` and its halves correctly.

    Args:
        layer: The layer to check.
        x: An input for it, a tensor or a tree of tensors.
        params: Its params. By default fresh ones.
        rng: Key or seed for fresh params, and for ``apply`` of a stochastic layer.
        dtype: Floating dtype of params and x; a layer can use other kernels in another dtype.

    Raises:
        AssertionError: If the layer breaks the law.
    """
    check_second_order(layer, *prepared(layer, x, params, rng, dtype), rng, dtype)
