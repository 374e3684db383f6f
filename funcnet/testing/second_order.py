"""Second order: ``torch.func`` differentiates every verb, and agrees with ``vjp``.

    torch.func.vjp(apply)(gy)      = vjp(gy)                                 at kinks too
    ⟨gy, torch.func.jvp(apply)(v)⟩ = ⟨vjp(gy), v⟩                            at kinks too
    ⟨torch.func.vjp(B)(u), d⟩      = the slope of t -> ⟨u, B(z + t d)⟩       B = all backward verbs, z = (params, x, gy)

The slope is computed with central differences; the step is reduced until they agree. A gradient has no slope on a kink: there,
nearby points are used.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from funcnet import random, tree
from funcnet.contract import Layer, Params
from funcnet.random.keys import Key
from funcnet.testing.comparison import check_equal, named, noise_like, require, run
from funcnet.testing.differences import finite_difference
from funcnet.testing.precision import allowed

Leaves = dict[str, Tensor]
"""Tensors by path: leaves of params, x and gy, or results of verbs."""

_STEPS = tuple(2.0**-k for k in (10, 13, 16, 19, 22))
_TOLERANCE = 1e-6
_TRANSPOSED = 1e-10
# The rounding error of a slope, relative to ⟨|u|, |B|⟩: some units in the last place, divided by the step.
_ROUNDING = 64 * 2.0**-52
_NEARBY = (2.0**-6, 2.0**-9, 2.0**-5)


def check_second_order(layer: Layer, params: Params, x: Any, rng: Key | int, dtype: torch.dtype) -> None:
    """Require that ``torch.func`` on ``apply`` agrees with ``vjp``, and on ``vjp`` and its halves with finite differences.

    Leaves with the gradient ``None`` are constant: labels, and running statistics. Below float64, where a layer can use other
    kernels, finite differences are too inaccurate: ``vjp`` and its halves must only be differentiable.
    """
    verbs = _Verbs(layer, params, x, rng)
    if verbs.point and verbs.gy:
        if not layer.surrogate:  # torch.func computes the derivative of apply, from which the vjp of a surrogate differs
            _check_first_order(verbs, dtype)
        if dtype is torch.float64:
            _check_second_order(verbs)
        else:
            verbs.pulled_back(verbs.all)


class _Verbs:
    """The verbs of a layer as functions of the leaves that have a gradient, and of gy."""

    def __init__(self, layer: Layer, params: Params, x: Any, rng: Key | int) -> None:
        y, cache = run(layer, params, x, rng)
        self.layer, self.rng, self._cache = layer, rng, cache
        self._given = {**named((params, x)), "gy": noise_like(y, random.fold_in(rng, 1))}
        self.gradients: Leaves = tree.names(named(layer.vjp(params, cache, self._given["gy"])))
        leaves = tree.names(self._given)
        self.point: Leaves = {path: leaves[path] for path in self.gradients}
        self.gy: Leaves = tree.names({"gy": self._given["gy"]})
        self.all: Leaves = {**self.point, **self.gy}
        self.u: Leaves = noise_like(self.backward(self.all), random.fold_in(rng, 2))

    def in_double(self) -> "_Verbs":
        """Return the verbs at the same point in float64."""
        given = tree.cast(self._given, torch.float64)
        return _Verbs(self.layer, given["params"], given["x"], self.rng)

    def _at(self, leaves: Leaves) -> Any:
        return tree.map_with_path(leaves.get, self._given)

    def apply(self, leaves: Leaves) -> Leaves:
        """Return the floating leaves of y, by the paths of gy."""
        given = self._at(leaves)
        y = tree.names({"gy": run(self.layer, given["params"], given["x"], self.rng)[0]})
        return {path: y[path] for path in self.gy}

    def backward(self, leaves: Leaves) -> Leaves:
        """Return all gradients from all verbs, with a cache made from the same params and x."""
        given = self._at(leaves)
        cache = run(self.layer, given["params"], given["x"], self.rng)[1]
        arguments = given["params"], cache, given["gy"]
        halves = {"grads": self.layer.grads(*arguments), "input_grad": self.layer.input_grad(*arguments)}
        found: Leaves = tree.names({"vjp": named(self.layer.vjp(*arguments)), **halves})
        return found

    def vjp(self, gy: Leaves) -> Leaves:
        """Return the gradients from ``vjp``, with a constant cache, as functions of gy."""
        found: Leaves = tree.names(named(self.layer.vjp(self._given["params"], self._cache, self._at(gy)["gy"])))
        return found

    def vjp_with_new_cache(self, leaves: Leaves) -> Leaves:
        """Return the gradients from ``vjp`` as functions of all leaves."""
        return {path.removeprefix("vjp."): leaf for path, leaf in self.backward(leaves).items() if path.startswith("vjp.")}

    def pulled_back_apply(self, leaves: Leaves) -> Leaves:
        """Return the gradients from ``torch.func`` as functions of all leaves."""
        point, gy = ({path: leaves[path] for path in part} for part in (self.point, self.gy))
        found: Leaves = torch.func.vjp(self.apply, point)[1](gy)[0]
        return found

    def along(self, point: Leaves, v: Leaves) -> Leaves:
        """Return the derivative of ``apply`` along v, from ``torch.func``."""
        found: Leaves = torch.func.jvp(self.apply, (point,), (v,))[1]
        return found

    def pulled_back(self, leaves: Leaves) -> Leaves:
        """Return the gradient of ⟨u, B⟩."""
        found: Leaves = torch.func.vjp(self.backward, leaves)[1](self.u)[0]
        return found

    def paired(self, leaves: Leaves) -> Tensor:
        """Return ⟨u, B⟩."""
        return _dot(self.u, self.backward(leaves))


def _check_first_order(verbs: _Verbs, dtype: torch.dtype) -> None:
    """Require that both derivatives of ``apply`` agree with ``vjp`` and its transpose."""
    layer, scale = verbs.layer, (verbs.gy, verbs.point)
    v = noise_like(verbs.point, random.fold_in(verbs.rng, 3))
    moves = functools.partial(_moves, verbs, v, dtype)
    got = verbs.pulled_back_apply(verbs.all)
    rule = "torch.func.vjp of apply must give the gradients of vjp"
    check_equal(layer, rule, got, verbs.gradients, scale=scale, moves=moves)
    want = torch.func.vjp(verbs.vjp, verbs.gy)[1](v)[0]
    rule = "torch.func.jvp of apply must be the transpose of vjp, torch.func.vjp of gy -> vjp(gy)"
    check_equal(layer, rule, verbs.along(verbs.point, v), want, scale=(scale, v, want), moves=moves)


def _moves(verbs: _Verbs, v: Leaves, dtype: torch.dtype) -> Leaves:
    """Return how far rounding in ``dtype`` can move each element of both derivatives of ``apply``."""
    exact = verbs.in_double()

    def results(arguments: tuple[Leaves, Leaves]) -> Leaves:
        leaves, v = arguments
        by_kernels = {f"vjp.{path}": leaf for path, leaf in exact.vjp_with_new_cache(leaves).items()}
        return {**exact.pulled_back_apply(leaves), **exact.along({path: leaves[path] for path in v}, v), **by_kernels}

    found = allowed(results, (exact.all, tree.cast(v, torch.float64)), dtype)
    return {path: torch.maximum(moved, found.get(f"vjp.{path}", moved)) for path, moved in found.items()}


def _check_second_order(verbs: _Verbs) -> None:
    """Require that the derivatives of ``vjp`` and its halves agree with differences, at the point itself or nearby."""
    for point in _points(verbs):
        if _misses(verbs, point, _direction(verbs.all)) is None:
            _check_transposed(verbs, point)
            if not verbs.layer.surrogate:
                _check_twice(verbs, point)
            return
    rule = "torch.func.vjp of vjp, grads and input_grad must agree with central differences"
    for path, leaf in verbs.all.items():
        missed = _misses(verbs, point, _direction({path: leaf}))
        got = f"{missed[0]:.10g} along {path}, and differences {missed[1]:.10g}" if missed else ""
        require(missed is None, verbs.layer, f"{rule}; it gives {got}")
    require(False, verbs.layer, rule)


def _check_transposed(verbs: _Verbs, point: Leaves) -> None:
    """Require that the forward-mode derivative of the backward verbs is the transpose of the reverse-mode derivative."""
    v = noise_like(point, random.fold_in(verbs.rng, 4))
    along, back = torch.func.jvp(verbs.backward, (point,), (v,))[1], verbs.pulled_back(point)
    one, other, terms = float(_dot(verbs.u, along)), float(_dot(back, v)), float(_terms(verbs.u, along) + _terms(back, v))
    rule = f"torch.func.jvp of vjp must be the transpose of torch.func.vjp of vjp; ⟨u, B v⟩ is {one:.10g}, ⟨Bᵀ u, v⟩ {other:.10g}"
    require(abs(one - other) <= _TRANSPOSED * terms, verbs.layer, rule)


def _check_twice(verbs: _Verbs, point: Leaves) -> None:
    """Require that ``apply`` differentiated twice equals ``vjp`` differentiated once."""
    u = {path: verbs.u[f"vjp.{path}"] for path in verbs.point}
    got = torch.func.vjp(verbs.pulled_back_apply, point)[1](u)[0]
    want = torch.func.vjp(verbs.vjp_with_new_cache, point)[1](u)[0]
    rule = "torch.func.vjp of torch.func.vjp of apply must agree with torch.func.vjp of vjp"
    check_equal(verbs.layer, rule, got, want, scale=(point, u))


def _points(verbs: _Verbs) -> Iterator[Leaves]:
    """Yield the point itself, and other points near it."""
    yield verbs.all
    for seed, far in enumerate(_NEARBY):
        noise = noise_like(verbs.all, seed)
        yield {path: leaf + far * leaf.abs().clamp_min(1) * noise[path] for path, leaf in verbs.all.items()}


def _direction(leaves: Leaves) -> Leaves:
    """Return noise scaled like the leaves, divided by the root of the number of elements."""
    n = sum(leaf.numel() for leaf in leaves.values())
    noise = noise_like(leaves, 7)
    return {path: noise[path] * leaf.abs().clamp_min(1) / max(n, 1) ** 0.5 for path, leaf in leaves.items()}


def _misses(verbs: _Verbs, point: Leaves, d: Leaves) -> tuple[float, float] | None:
    """Return the derivative along d and the closest measured slope; ``None`` if they agree."""
    h = verbs.pulled_back(point)
    analytic, terms = float(_dot(h, d)), float(_terms(h, d))
    size = float(_terms(verbs.u, verbs.backward(point)))
    v = {path: d.get(path) for path in point}
    best = math.inf
    for step in _STEPS:
        numeric = float(finite_difference(verbs.paired, point, v, step))
        if abs(numeric - analytic) <= _TOLERANCE * terms + _ROUNDING * size / step:
            return None
        best = min(best, numeric, key=lambda one: abs(one - analytic))
    return analytic, best


def _dot(one: Leaves, other: Leaves) -> Tensor:
    return _sum(one, other, lambda a, b: a * b)


def _terms(one: Leaves, other: Leaves) -> Tensor:
    return _sum(one, other, lambda a, b: (a * b).abs())


def _sum(one: Leaves, other: Leaves, f: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    return torch.stack([f(one[path], leaf).sum() for path, leaf in other.items()]).sum()
