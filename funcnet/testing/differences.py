"""Finite differences: compare the ``vjp`` of a layer with numerical derivatives, in float64.

    f′(x) v = (8 (f₁ - f₋₁) - (f₂ - f₋₂)) / 12 h  + O(h⁴)               fₖ = f(x + k h v)
    right   = (-25 f₀ + 48 f₁ - 36 f₂ + 16 f₃ - 3 f₄) / 12 h  + O(h⁴)      left: the same with -h

The first is used where f is smooth. A step of 10⁻³ leaves an error of about 10⁻¹³, both from h⁴ and from rounding (10⁻¹⁶ / h). If
the step is too long for the curvature, or crosses a kink, a shorter step is tried. The other two are used if x is on a kink, or
closer to it than the shortest step: there, any number between the left and the right derivative is accepted.
"""

import math
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import attrs
import torch
from torch import Tensor

from funcnet import random, tree
from funcnet.contract import Layer, Params
from funcnet.errors import adds_location, describe, is_number, is_whole, value_error
from funcnet.flattening import Tree
from funcnet.random.keys import Key
from funcnet.testing.blame import Check, check_with_blame
from funcnet.testing.comparison import LawError, check_mirrored, largest, named, noise_like, prepared, run
from funcnet.testing.directions import coefficients, direction, flat, slope_scale
from funcnet.testing.precision import moves
from funcnet.testing.surrogates import check_declared, is_own_surrogate, with_declared_rules
from funcnet.value import parts
from funcnet.walking import walk

_STENCILS: dict[int, dict[int, float]] = {
    0: {1: 8 / 12, -1: -8 / 12, 2: -1 / 12, -2: 1 / 12},
    1: {0: -25 / 12, 1: 48 / 12, 2: -36 / 12, 3: 16 / 12, 4: -3 / 12},
    -1: {0: 25 / 12, -1: -48 / 12, -2: 36 / 12, -3: -16 / 12, -4: 3 / 12},
}
_STEPS = tuple(2.0**-k for k in (10, 12, 14, 16, 18, 20, 22))
_SIDE_STEPS = (2.0**-14, 2.0**-20)
# The rounding error of a slope at the first step, relative to |gy|·|y|: a few units in the last place, 2⁻⁵², divided by h.
_ROUNDING = 4 * 2.0**-52 / _STEPS[0]
# A relative change of a gradient that is too large for rounding in float64.
_JUMP = 1e-9
_FULL = 64
_DIRECTIONS = 3
_ENOUGH = 16


@adds_location("finite_difference")
def finite_difference(f: Callable[[Tree], Tensor], x: Tree, v: Tree, step: float = _STEPS[0], side: int = 0) -> Tensor:
    """Return the derivative of f at x along v, to fourth order in ``step``.

        f′(x) v = (8 (f₁ - f₋₁) - (f₂ - f₋₂)) / 12 h      fₖ = f(x + k h v), h = step

    Args:
        f: A function from a tree to a tensor.
        x: The tree at which to differentiate.
        v: The direction, a tree like x; leaves of x with ``None`` here stay fixed.
        step: Size of the step, a factor of v. The default, 2⁻¹⁰, balances the error of the formula and rounding in float64.
        side: 0 for the central difference, 1 or -1 for the derivative from the right or the left.

    Raises:
        ValueError: If ``step`` is not a finite number above 0, or ``side`` is not one of these numbers.

    >>> round(float(finite_difference(torch.sin, torch.zeros((), dtype=torch.float64), torch.ones(()))), 9)
    1.0
    """
    if not is_number(step) or step <= 0 or not is_whole(side) or side not in _STENCILS:
        got = f"step={step!r}, side={side!r}"
        raise value_error("finite_difference", "step must be a finite number above 0, and side 0, 1 or -1", got)
    if not callable(f):
        raise value_error("finite_difference", "f must be a function", describe(f))
    step = float(step)
    terms = [weight * f(tree.add(x, tree.scale(v, k * step))) for k, weight in _STENCILS[side].items()]
    return sum(terms[1:], terms[0]) / step


def check_vjp(
    layer: Layer, x: Any, params: Params | None = None, rng: Key | int = 0, *, tolerance: float = 1e-7
) -> dict[str, float | None]:
    """Compare ``vjp`` with numerical derivatives, for every leaf of params and every floating leaf of x.

    Everything is computed in float64, for one random gy. Each leaf is checked along random directions, and element by element if
    a direction fails. For leaves of up to 64 elements the tolerance along a direction is so small that an error in a single
    element cannot hide. Errors are relative to the gradient, or to the root mean square of the gradients of the leaf if that is
    larger. At a kink, like 0 for ReLU, any number between the left and the right derivative passes.

    Args:
        layer: The layer to check.
        x: An input for it, a tensor or a tree of tensors.
        params: Its params. By default ``layer.init(rng)``.
        rng: Key or seed for fresh params, and for ``apply`` of a stochastic layer.
        tolerance: Largest relative error allowed.

    Returns:
        The largest error of each leaf, by path. It is ``None`` for a leaf whose gradient is ``None``: a label, a leaf that y does
        not depend on, or params that a layer lists in ``non_trainable``.

    Raises:
        AssertionError: With the path, the index, both numbers and the relative error of the worst element found; also for
            ``None`` in place of a gradient. For a net, the message names the first inner layer that fails alone, with the
            arguments that it received in the net.
        ValueError: If ``layer`` is not a layer, or ``tolerance`` is not a finite number of at least 0.

    >>> from funcnet.layers.linear.linear import Linear
    >>> sorted(check_vjp(Linear(3, 2), torch.ones(4, 3)))
    ['params.bias', 'params.weight', 'x']
    """
    if not isinstance(layer, Layer):
        raise value_error("check_vjp", "layer must be a layer (a value with init, apply and vjp)", describe(layer))
    if not is_number(tolerance) or tolerance < 0:
        raise value_error("check_vjp", "tolerance must be a finite number of at least 0", repr(tolerance))
    check: Check = lambda one, p, given, key: _compare_gradients(one, p, given, key, tolerance)
    found: dict[str, float | None] = check_with_blame(check, layer, *prepared(layer, x, params, rng), rng)
    return found


def _compare_gradients(layer: Layer, params: Params, x: Any, rng: Key | int, tolerance: float) -> dict[str, float | None]:
    y, cache = run(layer, params, x, rng)
    gy = noise_like(y, random.fold_in(rng, _FULL))
    values, gradients = named((params, x)), named(layer.vjp(params, cache, gy))
    check_mirrored(layer, values, gradients)
    if layer.surrogate:
        if is_own_surrogate(layer):
            check_declared(layer, params, x, rng, gy)
        layer = with_declared_rules(layer, params, x, rng, gy)
    measure = _Measure(layer, rng, values, gy, _ROUNDING * float(flat(gy).abs() @ flat(y).abs()), tolerance)
    found = tree.names(gradients)
    return {path: measure.check(path, leaf, found.get(path)) for path, leaf in tree.names(values).items()}


@attrs.frozen
class _Slope:
    """A derivative from ``vjp`` and from differences, at the element ``index``; ``None`` for several elements."""

    analytic: float
    numeric: float
    error: float
    index: tuple[int, ...] | None = None


@attrs.frozen(eq=False)
class _Measure:
    """The derivatives of t -> ⟨gy, y(values + t v)⟩ at 0, for v in one leaf at a time."""

    layer: Layer
    rng: Key | int
    values: Tree
    gy: Any
    rounding: float
    tolerance: float

    @cached_property
    def lost(self) -> dict[str, Tensor]:
        """The rounding errors of the slope and of each gradient, by path: how far they move with the last digits of the input.

        Where large terms cancel, a gradient of 0 is computed as nothing but rounding. A jump at a kink is not rounding.
        """
        moved = moves(self._slope_and_gradients, (self.values, self.gy), 2.0**-52)
        size = max([largest(leaf) for leaf in tree.leaves((self.values, self.gy))], default=0.0)
        return {path: torch.where(leaf <= _JUMP * size, leaf, 0.0) for path, leaf in moved.items()}

    def _slope_and_gradients(self, arguments: Tree) -> dict[str, Tensor]:
        values, gy = arguments
        y, cache = run(self.layer, values["params"], values["x"], self.rng)
        slope = flat(gy) @ flat(y)
        return {"": slope, **tree.names(named(self.layer.vjp(values["params"], cache, gy)))}

    def check(self, path: str, leaf: Tensor, g: Tensor | None) -> float | None:
        """Return the largest error in a leaf; ``None`` for a leaf that has no gradient and needs none."""
        if g is not None:
            return self.worst(path, leaf, g)
        non_trainable = {name for part in parts(self.layer) if isinstance(part, Layer) for name in part.non_trainable}
        is_named = any(f".{name}." in f".{path}." for name in non_trainable)
        if leaf.is_floating_point() and not is_named and not self._is_frozen(path):
            try:
                self.worst(path, leaf, torch.zeros_like(leaf))
            except AssertionError:
                raise LawError(f"y depends on {path}, so its gradient must not be None", self.layer) from None
        return None

    def _is_frozen(self, path: str) -> bool:
        """Return whether a leaf is in a layer that is not trainable; among layers with the same path, the outermost decides."""
        outermost = dict(reversed([*walk(self.layer)]))
        frozen = [f"params.{at}".rstrip(".") for at, part in outermost.items() if not part.trainable]
        return any(f"{path}.".startswith(f"{at}.") for at in frozen)

    def worst(self, path: str, leaf: Tensor, g: Tensor) -> float:
        """Return the largest error in a leaf; raise ``AssertionError`` if it is above the tolerance."""
        worst, bad = _Slope(0.0, 0.0, 0.0), set()
        for slope in self._slopes(path, leaf, g):
            worst = max(worst, slope, key=lambda one: one.error)
            bad |= {slope.index} if slope.error > self.tolerance else set()
            if len(bad) == _ENOUGH:
                break
        if bad:
            where = f"{path} at {list(worst.index)}" if worst.index else path
            numbers = f"{worst.analytic:.10g} by vjp and {worst.numeric:.10g} by central differences"
            error = f"relative error {worst.error:.2g} where {self.tolerance:g} is allowed"
            count = f"{len(bad)}{' or more' * (len(bad) == _ENOUGH)} of the {leaf.numel()} there are wrong"
            raise LawError(f"the gradient of {where} is {numbers}, {error}; {count}", self.layer)
        return worst.error

    def _slopes(self, path: str, leaf: Tensor, g: Tensor) -> Iterator[_Slope]:
        """Measure along directions that include all elements; those of a small leaf one by one, if a direction disagrees."""
        everything = torch.arange(leaf.numel(), device=leaf.device)
        slopes = self._quick(path, leaf, g) if leaf.numel() <= _FULL else []
        if slopes:
            yield from slopes
            return
        parts = everything.reshape(-1, 1) if leaf.numel() <= _FULL else everything.expand(_DIRECTIONS, -1)
        for seed, indices in enumerate(parts):
            yield from self._search(path, leaf, g, indices, seed)

    def _quick(self, path: str, leaf: Tensor, g: Tensor) -> list[_Slope]:
        """Measure a small leaf along directions with all its elements; return no slope if one disagrees.

        The coefficients are random, so errors do not cancel. A direction may differ by no more than the smallest error for which
        any of the elements would be rejected.
        """
        slopes, n = list[_Slope](), leaf.numel()
        for seed in range(_DIRECTIONS if n > _DIRECTIONS else 0):
            v = coefficients(n, seed).to(leaf).reshape(leaf.shape) * leaf.abs().clamp_min(1)
            analytic, root_mean_square = float((g * v).sum()), float(torch.linalg.vector_norm(g)) / n**0.5
            allowed = self.tolerance * root_mean_square * float(v.abs().min()) + self.rounding
            measured = (self._slope(path, v, step) for step in _STEPS[1:3])  # v is long
            numeric = next((one for one in measured if abs(analytic - one) <= allowed), None)
            if numeric is None:
                return []
            slopes.append(_Slope(analytic, numeric, self._error(analytic, numeric, slope_scale(g, v))))
        return slopes

    def _search(self, path: str, leaf: Tensor, g: Tensor, indices: Tensor, seed: int) -> Iterator[_Slope]:
        """Measure along random signs at these elements; if this fails, search both halves of them for the cause."""
        v = direction(leaf, indices, seed)
        if len(indices) == 0:
            return
        if len(indices) == 1:
            index = tuple(int(i) for i in torch.unravel_index(indices[0], leaf.shape))
            slope = self._compare(path, v, g, kinks=True)
            length = float(v[index])
            yield _Slope(slope.analytic / length, slope.numeric / length, slope.error, index)
            return
        slope = self._compare(path, v, g, kinks=False)
        if slope.error <= self.tolerance:
            yield slope
        else:
            for half in indices.tensor_split(2):
                yield from self._search(path, leaf, g, half, seed)

    def _compare(self, path: str, v: Tensor, g: Tensor, *, kinks: bool) -> _Slope:
        """Measure along v with the longest step that agrees with g, or else with the step that agrees best.

        With ``kinks``, a kink excuses a difference. This is right for one element; for several it would hide errors.
        """
        analytic, floor = float((g * v).sum()), slope_scale(g, v)
        best = _Slope(analytic, math.nan, math.inf)
        for step in _STEPS:
            numeric = self._slope(path, v, step)
            best = min(best, _Slope(analytic, numeric, self._error(analytic, numeric, floor)), key=lambda one: one.error)
            if best.error <= self.tolerance:
                return best
        best = attrs.evolve(best, error=min(best.error, self._error(analytic, best.numeric, floor, self._lost(path, v))))
        if best.error <= self.tolerance:
            return best
        return _Slope(analytic, analytic, 0.0) if kinks and self._on_a_kink(path, v, analytic, floor) else best

    def _on_a_kink(self, path: str, v: Tensor, analytic: float, floor: float) -> bool:
        """Return whether ``analytic`` is between the derivatives from the left and from the right."""
        for step in _SIDE_STEPS:
            low, high = sorted((self._slope(path, v, step, -1), self._slope(path, v, step, 1)))
            slack = self.tolerance * max(abs(low), abs(high), floor) + self.rounding
            if low - slack <= analytic <= high + slack:
                return True
        return False

    def _slope(self, path: str, v: Tensor, step: float, side: int = 0) -> float:
        along = tree.replace(tree.map(lambda _: None, self.values), path, v)
        return float(flat(self.gy) @ finite_difference(self._output, self.values, along, step, side))

    def _lost(self, path: str, v: Tensor) -> float:
        """Return how much rounding can change the slope along v, both from differences and from ``vjp``."""
        return 4 * (float(self.lost[""]) / _STEPS[0] + float((self.lost.get(path, torch.zeros(())) * v.abs()).sum()))

    def _output(self, values: Tree) -> Tensor:
        return flat(run(self.layer, values["params"], values["x"], self.rng)[0])

    def _error(self, analytic: float, numeric: float, floor: float, lost: float = 0.0) -> float:
        """Return the relative error without the part that rounding explains."""
        excess = abs(analytic - numeric) - self.rounding - lost
        relative = max(excess, 0.0) / max(abs(analytic), abs(numeric), floor, math.ulp(0.0))
        return relative if math.isfinite(excess) and math.isfinite(relative) else math.inf
