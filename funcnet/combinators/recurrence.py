"""Recurrence: a layer along an axis of steps.

    yₜ, sₜ = f(xₜ, sₜ₋₁)      gxₜ, gₜ₋₁ = gradients of f at t, from (gyₜ, gₜ)      gp = Σₜ gpₜ

s is the carry; g is its gradient, which goes back from the gradient of the last carry to gs₀ = g₀.
"""

from typing import Any

from attrs import field
from torch import Tensor

from funcnet import random, tree
from funcnet.combinator import (
    absent,
    add_gradients,
    child_key,
    errors_at,
    has_params,
    layers_only,
)
from funcnet.combinators.stacking import Stack
from funcnet.contract import Cache, Grads, Layer, Params, Rng
from funcnet.errors import describe, flag, number_of_parts, value_error
from funcnet.value import frozen
from funcnet.wrapper import Wrapper


def _at(values: Any, t: int) -> Any:
    return tree.map(lambda leaf: leaf[t], values)


def _add_constants(totals: list[Any], more: list[Any]) -> list[Any]:
    return [tree.add(*pair) for pair in zip(totals, more, strict=True)] if totals else more


def _validate_every(value: Any, attribute: Any, got: Any) -> None:
    if got is not None:
        number_of_parts(value, attribute, got)


@frozen
class Scan(Wrapper):
    """A layer from (x, carry) to (y, carry), run along the first axis of x; made by ``scan``.

        yₜ, sₜ = f(xₜ, sₜ₋₁, e)      gpₜ, (gxₜ, gₜ₋₁, geₜ) = f.vjp at t of (gyₜ, gₜ)      gp = Σₜ gpₜ      ge = Σₜ geₜ

    Args:
        layer: The layer f. If x has constants e, f takes them as the third entry of a triple.
        reverse: Whether to go from the last step to the first.
        output_is_carry: Whether the layer returns only its next carry, which is also its output.
        checkpoint_every: Number of steps from one kept carry to the next; ``None`` to keep the cache of every step.

    Shape:
        (xs, carry) or (xs, carry, constants) → (ys, carry), steps along the first axis of every tensor in xs and ys.

    Params:
        The layer's params: one set for all steps. Step t has the key ``fold_in(rng, t)``.

    Cache:
        A tuple with the cache of each step; with ``checkpoint_every`` a tuple of x, the kept carries and the key.

    Raises:
        ValueError: If x is not a pair or triple, or its tensors have different numbers of steps.
    """

    label = "scan"

    layer: Layer = field(validator=layers_only)
    reverse: bool = field(default=False, validator=flag)
    output_is_carry: bool = field(default=False, validator=flag)
    checkpoint_every: int | None = field(default=None, validator=_validate_every)

    def location(self, name: Any) -> str:
        return f"scan, step {name}" if name != "" else "scan"

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        key = None if rng is None or not self.layer.stochastic else random.as_key(rng)
        carry, steps = self._checked(x)[1], self._steps(x[0])
        ys, caches, kept = Stack(len(steps)), [], []
        for chunk in self._chunks(steps):
            kept.append(carry)
            carry, ones = self._run(self.layer.apply, params, x, carry, chunk, key, ys)
            caches += [] if self.checkpoint_every else ones
        cache = (x, tuple(kept), key) if self.checkpoint_every else tuple(caches)
        return (ys.tree(), carry), cache

    def __call__(self, params: Params, x: Any, rng: Rng = None) -> Any:
        predict = lambda p, one, key: (self.layer(p, one, key), ())
        steps = self._steps(self._checked(x)[0])
        ys = Stack(len(steps))
        carry, _ = self._run(predict, params, x, x[1], steps, rng, ys)
        return ys.tree(), carry

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        total: Any = None
        gxs, (gys, g) = Stack(self._number(cache)), self._gradients(cache, gy)
        constants: list[Any] = []
        for chunk, kept in self._backward(cache):
            for t, one in reversed([*zip(chunk, self._again(params, cache, chunk, kept), strict=True)]):
                with errors_at(self, t):
                    gp, (gx, g, *more) = self.layer.vjp(params, one, self._given(_at(gys, t), g))
                total = gp if total is None else tree.add(total, gp)
                constants = _add_constants(constants, more)
                gxs.put(t, gx)
        return total, (gxs.tree(), g, *constants)

    def grads(self, params: Params, cache: Cache, gy: Any) -> Grads:
        wanted = self.layer.trainable and has_params(params)
        return self.vjp(params, cache, gy)[0] if wanted else absent(params)

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        gxs, (gys, g) = Stack(self._number(cache)), self._gradients(cache, gy)
        constants: list[Any] = []
        for chunk, kept in self._backward(cache):
            for t, one in reversed([*zip(chunk, self._again(params, cache, chunk, kept), strict=True)]):
                with errors_at(self, t):
                    gx, g, *more = self.layer.input_grad(params, one, self._given(_at(gys, t), g))
                constants = _add_constants(constants, more)
                gxs.put(t, gx)
        return gxs.tree(), g, *constants

    def update_stats(self, params: Params, cache: Cache) -> Params:
        """Fold in the statistics of every step, in order of t. Recomputed steps use these params."""
        caches: list[Cache] = []
        for chunk, kept in reversed(self._backward(cache)):
            caches += self._again(params, cache, chunk, kept)
        for t, one in enumerate(caches):
            with errors_at(self, t):
                params = self.layer.update_stats(params, one)
        return params

    def __repr__(self) -> str:
        words = [repr(self.layer)] + [f"{name}=True" for name in ("reverse", "output_is_carry") if getattr(self, name)]
        words += [] if self.checkpoint_every is None else [f"checkpoint_every={self.checkpoint_every}"]
        return f"scan({', '.join(words)})"

    def _checked(self, x: Any) -> Any:
        if not isinstance(x, tuple) or len(x) not in (2, 3) or not tree.leaves(x[0]):
            rule = "x must be a pair (xs, carry) or a triple (xs, carry, constants), steps along the first axis of xs"
            raise value_error("scan", rule, x)
        lengths = {leaf.shape[0] if isinstance(leaf, Tensor) and leaf.dim() else 0 for leaf in tree.leaves(x[0])}
        if len(lengths) > 1 or 0 in lengths:
            rule = "the tensors of xs must have the same number of steps, at least 1"
            raise value_error("scan", rule, " and ".join(map(str, sorted(lengths))))
        return x

    def _run(
        self, apply: Any, params: Params, x: Any, carry: Any, steps: Any, rng: Rng, ys: Stack | None = None
    ) -> tuple[Any, list[Cache]]:
        """Take some steps from a carry and put their outputs into ``ys``; return the last carry and the caches."""
        caches = []
        for t in steps:
            with errors_at(self, t):
                y, cache = apply(params, (_at(x[0], t), carry, *x[2:]), child_key(self.layer, rng, t))
            y, carry = (y, y) if self.output_is_carry else y
            if ys is not None:
                ys.put(t, y)
            caches.append(cache)
        return carry, caches

    def _steps(self, xs: Any) -> list[int]:
        steps = [*range(tree.leaves(xs)[0].shape[0])]
        return steps[::-1] if self.reverse else steps

    def _chunks(self, steps: list[int]) -> list[list[int]]:
        """Divide the steps into groups, each of which starts from a kept carry."""
        every = self.checkpoint_every or len(steps)
        return [steps[i : i + every] for i in range(0, len(steps), every)]

    def _number(self, cache: Cache) -> int:
        """Return the number of steps."""
        return len(self._steps(cache[0][0])) if self.checkpoint_every else len(cache)

    def _backward(self, cache: Cache) -> list[tuple[list[int], Any]]:
        """Return the groups of steps, the last group first, each with its carry, or ``None`` if all caches are kept."""
        steps = [*range(self._number(cache))]
        chunks = self._chunks(steps[::-1] if self.reverse else steps)
        return [*zip(chunks, cache[1] if self.checkpoint_every else [None], strict=True)][::-1]

    def _again(self, params: Params, cache: Cache, chunk: list[int], carry: Any) -> Any:
        """Return the caches of a group of steps, kept or recomputed."""
        return self._run(self.layer.apply, params, cache[0], carry, chunk, cache[2])[1] if self.checkpoint_every else cache

    def _gradients(self, cache: Cache, gy: Any) -> Any:
        """Return gy, after checking that it is a pair and its first part has the right number of steps."""
        if not isinstance(gy, tuple) or len(gy) != 2:
            raise value_error("scan", "gy must be a pair, the gradients of ys and of the last carry", describe(gy))
        for leaf in tree.leaves(gy[0]):
            if leaf.shape[:1] != (self._number(cache),):
                raise value_error("scan", f"the gradients of ys must have {self._number(cache)} steps", describe(leaf))
        return gy

    def _given(self, gy: Any, g: Any) -> Any:
        return add_gradients("scan", gy, g) if self.output_is_carry else (gy, g)


def scan(layer: Layer, *, reverse: bool = False, output_is_carry: bool = False, checkpoint_every: int | None = None) -> Scan:
    """Run a layer from (x, carry) to (y, carry) along time: (xs, carry) to (ys, last carry), steps along the first axis.

        yₜ, sₜ = f(xₜ, sₜ₋₁)      gpₜ, (gxₜ, gₜ₋₁) = f.vjp at t of (gyₜ, gₜ)      gp = Σₜ gpₜ

    Constants that every step sees (outputs of an encoder, a mask) are a third entry of x. The layer then takes the triple
    (x, carry, constants), and the gradients of the constants are summed over the steps.

    Args:
        layer: The layer f, for example a recurrent cell.
        reverse: Whether to go from the last step to the first.
        output_is_carry: Whether the layer returns only its next carry, which is also its output, as recurrent cells do.
        checkpoint_every: Number of steps between kept carries. The backward pass recomputes the steps in between, bit for bit,
            which takes one more forward pass. √T needs the least memory for T steps. By default the cache of every step is kept.

    Shape:
        (xs, carry) or (xs, carry, constants) → (ys, carry), steps along the first axis of every tensor in xs and ys.

    Params:
        The layer's params: one set for all steps. Step t has the key ``fold_in(rng, t)``.

    Cache:
        A tuple with the cache of each step; with ``checkpoint_every`` a tuple of x, the kept carries and the key.

    >>> import torch
    >>> from funcnet.layers.recurrent.cells import GRUCell
    >>> net = scan(GRUCell(3, 4), output_is_carry=True, checkpoint_every=8)
    >>> ys, last = net(net.init(0), (torch.ones(20, 2, 3), torch.zeros(2, 4)))
    >>> ys.shape, last.shape
    (torch.Size([20, 2, 4]), torch.Size([2, 4]))
    """
    return Scan(layer, reverse, output_is_carry, checkpoint_every)
