"""Precision: compare a layer in a lower dtype with itself in float64, on the same numbers, which the lower dtype can represent.

A stable kernel returns the exact result for arguments that are a few roundings away, rounded again (Higham 2002, section 1.5).
Let ε be the distance from 1 to the next number of the dtype, and δ the same for float64. Each element can then be off by

    8 ε · (the largest magnitude in its leaf)  +  4 · max(m(ε), ε/δ · n(δ))

where m(ε) is the largest change of the float64 result when each argument changes by up to ε, relative to its size. The first term
is the rounding of sums, which are accumulated at least in float32. No kernel can avoid the second term; it is measured if the
first does not suffice. m(ε) includes cancellation in the arguments, and a kink that rounding crosses. n(δ) is the rounding error
of float64 within the layer, where large terms cancel, as in the gradient of a norm, or where a number near 1 is rounded, as in
the gradient of tanh. The lower dtype loses ε/δ times as much.

A stochastic layer samples other numbers in float64. In half precision it is therefore compared with float32; in float32 its
``inference()`` is compared, unless that is stochastic too.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from funcnet import flattening, random, tree
from funcnet.contract import Layer, Params
from funcnet.flattening import Tree
from funcnet.random.keys import Key
from funcnet.testing.comparison import MARGIN, ROUNDINGS, everything, largest, named, noise_like, require, require_structure, run

Results = Callable[[Tree], dict[str, Tensor]]

_TRIALS = 32  # a last digit that is lost in one of four trials is then missed once in ten thousand


def check_precision(layer: Layer, params: Params, x: Any, rng: Key | int, dtype: torch.dtype) -> None:
    """Require that y, all gradients and the statistics equal those in float64 within the rounding of ``dtype``.

    Params and x have this dtype.
    """
    single = layer.stochastic and dtype is not torch.float32
    layer = layer if single else _deterministic(layer)
    if layer.stochastic and not single:
        return
    gy = noise_like(run(layer, params, x, rng)[0], random.fold_in(rng, 1))
    exact = tree.cast((params, x, gy), torch.float32 if single else torch.float64)
    results: Results = lambda arguments: _results(layer, arguments, rng)
    want, got = results(exact), results((params, x, gy))
    require_structure(layer, "the results must have the structure of those in float64", want, got)
    bounds = {path: torch.tensor(ROUNDINGS * _unit(got[path].dtype) * largest(leaf)) for path, leaf in want.items()}
    if any(_excess(got[path], leaf, bounds[path])[0] > 0 for path, leaf in want.items()):
        for path, moved in allowed(results, exact, dtype).items():
            bounds[path] = bounds[path] + MARGIN * moved
    for path, leaf in want.items():
        excess, index = _excess(got[path], leaf, bounds[path])
        require(excess <= 0, layer, _message(path, index, got[path], leaf, bounds[path]))


def _deterministic(layer: Layer) -> Layer:
    return layer.inference() if layer.stochastic else layer


def moves_of(layer: Layer, arguments: tuple[Params, Any, Any], rng: Key | int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return max(m(ε), ε/δ · n(δ)) for each element of all results of a layer."""
    exact = tree.cast(arguments, torch.float64)
    results: Results = lambda near: tree.names(everything(layer, near[0], near[1], near[2], rng))
    return allowed(results, exact, dtype)


def allowed(results: Results, exact: Tree, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return max(m(ε), ε/δ · n(δ)) for each element of the results, where δ is that of the dtype of ``exact``."""
    low = _unit(dtype)
    high = max(_unit(leaf.dtype) for leaf in tree.leaves(exact)) or low
    lost = _noise(results, exact, high)
    return {path: torch.maximum(moved, low / high * lost[path]) for path, moved in moves(results, exact, low).items()}


def _noise(results: Results, exact: Tree, unit: float) -> dict[str, Tensor]:
    """Return the rounding errors of the results: n(unit), the largest move, or second difference over a step of √unit.

    A step of this size changes how numbers are rounded inside; the smooth part of the second difference is at most a unit.
    """
    want, found = results(exact), moves(results, exact, unit)
    for trial in range(_TRIALS // 4):
        steps = [results(_perturb(exact, side * unit**0.5, trial)) for side in (1, -1)]
        for path, leaf in want.items():
            bent = (steps[0][path].double() - 2 * leaf.double() + steps[1][path].double()).abs().nan_to_num(torch.inf)
            found[path] = torch.maximum(found[path], bent)
    return found


def moves(results: Results, exact: Tree, unit: float) -> dict[str, Tensor]:
    """Return the largest change of each element of the results when each argument changes by up to a unit: m(unit)."""
    want, found = results(exact), dict[str, Tensor]()
    for trial in range(_TRIALS):
        for path, leaf in results(_perturb(exact, unit, trial)).items():
            moved = (leaf.double() - want[path].double()).abs().nan_to_num(torch.inf)
            found[path] = torch.maximum(found.get(path, moved), moved)
    return found


def _perturb(exact: Tree, share: float, seed: int) -> Tree:
    """Multiply each floating element by a number from 1 - ``share`` to 1 + ``share``."""
    leaves = [
        leaf * (1 + share * random.uniform(random.fold_in(seed, i), tuple(leaf.shape), -1.0, 1.0, leaf.dtype))
        if leaf is not None and leaf.is_floating_point()
        else leaf
        for i, leaf in enumerate(flattening.flatten_together(exact)[0])
    ]
    return flattening.unflatten(exact, iter(leaves))


def _results(layer: Layer, arguments: Tree, rng: Key | int) -> dict[str, Tensor]:
    params, x, gy = arguments
    y, cache = run(layer, params, x, rng)
    gradients = named(layer.vjp(params, cache, gy))
    return tree.names({"y": y, "the gradient of": gradients, "update_stats": layer.update_stats(params, cache)})


def _unit(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps if dtype.is_floating_point else 0.0


def _excess(got: Tensor, want: Tensor, bound: Tensor) -> tuple[float, int]:
    """Return by how much the worst element exceeds its bound, and its index. Numbers beyond the dtype are infinite in both."""
    if not want.numel():
        return 0.0, 0
    want = want.to(got.dtype) if got.is_floating_point() else want
    same = (got == want) | (got.isnan() & want.isnan())
    excess = torch.where(same, 0.0, (got.double() - want.double()).abs() - bound).nan_to_num(torch.inf, torch.inf).reshape(-1)
    at = int(excess.argmax())
    return float(excess[at]), at


def _message(path: str, at: int, got: Tensor, want: Tensor, bound: Tensor) -> str:
    if not want.numel():
        return path
    index = [int(i) for i in torch.unravel_index(torch.tensor(at), want.shape)]
    ours, theirs, allowed = (leaf.expand(want.shape).reshape(-1)[at].item() for leaf in (got, want, bound))
    numbers = f"is {ours:.9g} in {got.dtype} and {theirs:.9g} in {want.dtype}"
    return f"{path.replace('of.', 'of ')} at {index} {numbers}, further apart than rounding allows, {allowed:.3g}"
