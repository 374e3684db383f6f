"""A layer beside its twin in torch.nn: the same params by name, and the same values and gradients by autograd, in float64."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import funcnet as fn
from funcnet import tree

CLOSE = {"rtol": 1e-10, "atol": 1e-10}


def draw(shape: Any, seed: int = 0) -> Tensor:
    """Draw normal numbers in float64."""
    return fn.random.normal(seed, tuple(shape), dtype=torch.float64)


def params_of(layer: fn.Layer, module: nn.Module) -> Any:
    """Load the module's ``state_dict``, in float64, as the layer's params, by name."""
    return tree.from_names(module.double().state_dict(), tree.cast(layer.init(0), torch.float64))


def assert_twins(
    layer: fn.Layer, module: nn.Module, x: Any, *, call: Callable[..., Any] | None = None, tolerance: dict[str, float] = CLOSE
) -> None:
    """Check that the layer, with the module's weights, has its output and all its gradients.

    x is a tensor, or a tree of them; ``call(module, x)`` calls the module where it is not just ``module(x)``.
    """
    params = params_of(layer, module)
    x = tree.map(lambda leaf: leaf.detach().clone(), x)
    y, cache = layer.apply(params, x)
    gy = tree.map(lambda leaf: draw(leaf.shape, 3) if leaf.is_floating_point() else None, y)
    gparams, gx = layer.vjp(params, cache, gy)
    want_y, want_gparams, want_gx = _by_autograd(call or (lambda m, x: m(x)), module, x, gy)
    _assert_same("y", y, want_y, tolerance)
    _assert_same("gx", gx, want_gx, tolerance)
    _assert_same("gradient of", gparams, want_gparams, tolerance)


def _by_autograd(call: Callable[..., Any], module: nn.Module, x: Any, gy: Any) -> tuple[Any, dict[str, Tensor], Any]:
    x = tree.map(lambda leaf: leaf.requires_grad_() if leaf.is_floating_point() else leaf, x)
    y = call(module, x)
    pairs = [(out, g) for out, g in zip(tree.leaves(y), tree.columns(gy)[0], strict=True) if g is not None]
    weights = dict(module.named_parameters())
    inputs = [leaf for leaf in tree.leaves(x) if leaf.is_floating_point()]
    grads = iter(
        torch.autograd.grad(
            [out for out, _ in pairs],
            [*inputs, *weights.values()],
            [g for _, g in pairs],
            allow_unused=True,
            materialize_grads=True,
        )
    )
    gx = tree.map(lambda leaf: next(grads) if leaf.is_floating_point() else None, x)
    detached = tree.map(lambda leaf: leaf.detach(), y)
    return detached, tree.from_names(dict(zip(weights, grads, strict=True))), gx


def _assert_same(what: str, got: Any, want: Any, tolerance: dict[str, float]) -> None:
    got, want = tree.names(got), tree.names(want)
    assert got.keys() == want.keys(), f"{what}: there must be {', '.join(want)}, got {', '.join(got)}"
    for path, leaf in want.items():
        torch.testing.assert_close(got[path], leaf, **tolerance, msg=lambda text, path=path: f"{what} {path}: {text}")
