"""Compare a layer with its twin in torch.nn: the same params by name, outputs, and gradients of autograd, in float64."""

import functools
import inspect
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import torch
from torch import Tensor, nn

import funcnet as fn
from funcnet import flattening, tree
from funcnet.layers.conv.window import Windowed
from funcnet.losses.loss import LossLayer

CLOSE = {"rtol": 1e-10, "atol": 1e-10}

TWINS: dict[str, str] = {}
"""The torch.nn modules that tests claim to compare with our layers of the same name, with these tests."""

ENOUGH = 20
"""Number of configurations that a comparison needs: different options, shapes or numbers."""

OF_CHANCE = {"p", "dropout"}
"""Arguments that control random draws: our key and torch's generator draw differently, so their effects are not compared."""

_compared: dict[str, set[str]] = defaultdict(set)
_taken: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
_axes: dict[str, set[int]] = defaultdict(set)


def draw(shape: Any, seed: int = 0) -> Tensor:
    """Draw normal numbers in float64."""
    return fn.random.normal(seed, tuple(shape), dtype=torch.float64)


def varied(module: nn.Module, seed: int) -> nn.Module:
    """Move a module's weights away from 1 and 0."""
    with torch.no_grad():
        for i, leaf in enumerate(module.parameters()):
            leaf.add_(draw(leaf.shape, seed + i))
    return module


def params_of(layer: fn.Layer, module: nn.Module) -> Any:
    """Load the module's ``state_dict`` in float64 as the layer's params, by name."""
    return tree.from_names(module.double().state_dict(), tree.cast(layer.init(0), torch.float64))


def twin_of(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Claim that a hypothesis test compares the named torch.nn modules with ours; the test fails if it does not.

    Every argument that both have must take at least two values. If windows slide over x, it must be tried with a batch axis and
    without. If the test is parametrized above ``given``, ``{argument}`` in a name is replaced with each value of that argument.
    """

    def claim(test: Callable[..., None]) -> Callable[..., None]:
        assert getattr(test, "is_hypothesis_test", False), f"{test.__name__} must be drawn by hypothesis"
        TWINS.update(dict.fromkeys(_filled(names, test), test.__name__))

        @functools.wraps(test)
        def counted(**arguments: Any) -> None:
            _compared.clear()
            _taken.clear()
            _axes.clear()
            test(**arguments)
            claimed = [name.format(**arguments) for name in names]
            few = {name: len(_compared[name]) for name in claimed if len(_compared[name]) < ENOUGH}
            assert few == {}, f"at least {ENOUGH} configurations must be compared with torch.nn's, got {few}"
            fixed = {name: still for name in claimed if (still := _fixed(name) - arguments.keys())}
            assert fixed == {}, f"every argument must be varied, except those of random draws and of the test, got {fixed}"
            batched = {name: _axes[name] for name in claimed if len(_axes[name]) == 1}
            assert batched == {}, f"x must be tried with a batch axis and without, got only these numbers of axes: {batched}"

        return counted

    return claim


def _fixed(name: str) -> set[str]:
    """Return the arguments shared by module and layer that took only one value."""
    known = set(inspect.signature(getattr(nn, name).__init__).parameters)
    both = _taken[name].keys() & known if "args" not in known else _taken[name].keys()
    return {argument for argument in both if len(_taken[name][argument]) < 2} - OF_CHANCE


def _filled(names: tuple[str, ...], test: Callable[..., None]) -> Iterator[str]:
    """Yield the names for every value of the parametrized argument of a test."""
    marks = [mark.args for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize"] or [("_", [""])]
    yield from (name.format(**{argument: value}) for argument, values in marks for value in values for name in names)


def _configuration(layer: fn.Layer, x: Any) -> str:
    """Identify the options of a layer and its input."""
    return f"{layer!r} {[(tuple(leaf.shape), float(leaf.detach().sum())) for leaf in tree.leaves(x)]}"


def assert_twins(
    layer: fn.Layer, module: nn.Module, x: Any, *, call: Callable[..., Any] | None = None, tolerance: dict[str, float] = CLOSE
) -> None:
    """Check that a layer with the module's weights gives its output and all its gradients.

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
    _compared[type(module).__name__].add(_configuration(layer, x))
    value = layer.loss if isinstance(layer, LossLayer) else layer
    for one in [one for one in attrs.fields(type(value)) if one.init]:
        _taken[type(module).__name__][one.alias].add(repr(getattr(value, one.name)))
    if isinstance(layer, Windowed):
        _axes[type(module).__name__].update(leaf.dim() for leaf in tree.leaves(x))


def _by_autograd(call: Callable[..., Any], module: nn.Module, x: Any, gy: Any) -> tuple[Any, dict[str, Tensor], Any]:
    x = tree.map(lambda leaf: leaf.requires_grad_() if leaf.is_floating_point() else leaf, x)
    y = call(module, x)
    pairs = [(out, g) for out, g in zip(tree.leaves(y), flattening.flatten_together(gy)[0], strict=True) if g is not None]
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
