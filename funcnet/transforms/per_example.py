"""Per example: the gradient of the loss of each row, or only its norm.

The net runs on rows under ``vmap``, each a batch of one. The gradients of a Linear, a convolution, an Embedding and a LayerNorm
are then formed from their factors, for all rows at once (``factors``). Their norms need no gradient (Goodfellow 2015, "Efficient
per-example gradient computations"):

    ‖gyᵀ x‖² = Σ (x xᵀ) ⊙ (gy gyᵀ)      for a single row: ‖gy‖² ‖x‖²

For an Embedding the square is Σ ⟨gyᵢ, gyⱼ⟩ over all i, j with xᵢ = xⱼ.
"""

from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet import random, tree
from funcnet.combinators.branching import Branching
from funcnet.combinators.dag import Graph
from funcnet.combinators.sequential import Serial
from funcnet.combinators.vmapping import mapped
from funcnet.contract import Cache, Grads, Layer, Params
from funcnet.errors import adds_location, describe, value_error
from funcnet.gradients import ValueAndGrads, value_and_grads
from funcnet.losses.loss import Loss
from funcnet.precision import in_single
from funcnet.random.keys import Key
from funcnet.stand_ins import StandIn, stand_in_for
from funcnet.transforms.factors import Factored, grads_of, has_factors, replace_factors, squares_of
from funcnet.value import Value, frozen
from funcnet.wrapper import Rearranging

_CALLS_EACH_CHILD_ONCE = (Serial, Branching, Graph, Rearranging)


def _validate_rows(value: Any, attribute: Any, step: ValueAndGrads) -> None:
    if step.net.batch_dependent:
        rule = "a row of the output must not depend on other rows, as it does with batch statistics"
        raise value_error(value, rule, "a net that is batch_dependent")
    if step.loss.batch_dependent:
        rule = "a term of the loss must not depend on other rows, as in contrastive losses"
        raise value_error(value, rule, "a loss that is batch_dependent")


@frozen
class PerExample(Value):
    """The losses of rows, and their gradients or gradient norms; made by ``per_example_grads`` or ``per_example_norms``.

        gradsᵢ = ∂ loss(net(params, xᵢ), targetᵢ) / ∂ params        normᵢ = ‖gradsᵢ‖ over all params

    Args:
        step: The ``value_and_grads`` of the net and its loss.
        only_norms: Whether to return the norms of the gradients instead of the gradients.
    """

    step: ValueAndGrads = field(validator=_validate_rows)
    only_norms: bool
    _factored: ValueAndGrads = field(init=False, eq=False)

    def __attrs_post_init__(self) -> None:
        net = _factored(self.step.net, only_norms=self.only_norms)
        object.__setattr__(self, "_factored", self.step.replace(net=net))

    def __reduce__(self) -> tuple[Any, ...]:
        return PerExample, (self.step, self.only_norms)

    def __call__(self, params: Params, x: Any, target: Any, rng: Key | int | None = None) -> tuple[Tensor, Any]:
        n = self._rows(x, target)
        if not n:
            return self._of_empty_batch(params, x, target, rng)
        rows, targets = tree.map(lambda leaf: leaf.unsqueeze(1), (x, target))
        one = lambda *row: self._factored(params, *row)[:2]
        values, grads = mapped(n, one, rows, targets, *self._keys(rng, n))
        if not self.only_norms:
            return values, replace_factors(grads, grads_of)
        return values, sum(tree.leaves(replace_factors(grads, squares_of)), values.new_zeros(n)).sqrt()

    def _of_empty_batch(self, params: Params, x: Any, target: Any, rng: Key | int | None) -> tuple[Tensor, Any]:
        """Return the result for an empty batch, which random sampling can give: that of a row of zeros, without the row."""
        x, target = tree.map(lambda leaf: leaf.new_zeros((1, *leaf.shape[1:])), (x, target))
        empty: tuple[Tensor, Any] = tree.map(lambda leaf: leaf[:0], self(params, x, target, rng))
        return empty

    def _rows(self, x: Any, target: Any) -> int:
        sizes = {leaf.shape[0] if isinstance(leaf, Tensor) and leaf.dim() else -1 for leaf in tree.leaves((x, target))}
        if len(sizes) != 1 or -1 in sizes:
            rule = "x and target must have the same number of rows"
            raise value_error(self, rule, f"{describe(x)} and {describe(target)}")
        return int(sizes.pop())

    def _keys(self, rng: Key | int | None, n: int) -> list[Tensor]:
        if rng is None or not self.step.net.stochastic:
            return []
        key = random.as_key(rng)
        return [random.fold_in(key, torch.arange(n, device=key.device))]

    def __repr__(self) -> str:
        return f"per_example_{'norms' if self.only_norms else 'grads'}({self.step.net!r}, {self.step.loss!r})"


class _Measured(StandIn):
    """A layer that returns the square of the norm of its gradient instead of the gradient."""

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        gparams, gx = self.original.vjp(params, cache, gy)
        return _sum_of_squares(gparams), gx

    def grads(self, params: Params, cache: Cache, gy: Any) -> Grads:
        made: Params = _sum_of_squares(self.original.grads(params, cache, gy))
        return made


def _factored(layer: Layer, *, only_norms: bool) -> Layer:
    """Return the net with stand-ins that return factors or squares; layers that may run twice return no factors."""
    if isinstance(layer, _CALLS_EACH_CHILD_ONCE) and layer.calls_each_child_once:
        children = {name: _factored(child, only_norms=only_norms) for name, child in layer.children().items()}
        return layer.with_children(children)
    if has_factors(layer):
        return stand_in_for(layer, Factored)
    return stand_in_for(layer, _Measured) if only_norms else layer


def _sum_of_squares(values: Any) -> Any:
    """Return the sum of the squares of all leaves; a tree without leaves is returned unchanged."""
    squares = [in_single(leaf).square().sum() for leaf in tree.leaves(values)]
    return sum(squares[1:], squares[0]) if squares else values


@adds_location("per_example_grads")
def per_example_grads(net: Layer, loss: Loss) -> PerExample:
    """Compute the gradient of the loss of each row separately.

        gradsᵢ = ∂ loss(net(params, xᵢ), targetᵢ) / ∂ params

    Row i equals the result of ``value_and_grads`` for ``x[i:i + 1]`` and ``target[i:i + 1]``. Row i of a stochastic net has the
    key ``fold_in(rng, i)``. A batch can be empty, as when rows are drawn at random for differentially private training.

    A loop over the rows takes 4 to 12 times as long, or twice as long where computing the gradients takes longer than writing
    them, as for five convolutions of 64 channels. ``torch.func.vmap`` of ``torch.func.grad`` takes 1.0 to 5 times as long.

    Args:
        net: A net whose rows do not depend on each other.
        loss: A loss with one value.

    Returns:
        A function ``(params, x, target, rng=None) -> (values, grads)``: values (N,), and grads with the structure of params and a
        new first axis of N.

    Raises:
        ValueError: If ``net`` or ``loss`` is ``batch_dependent``, or ``value_and_grads`` rejects them.

    >>> from funcnet.layers.linear.linear import Linear
    >>> from funcnet.losses.regression import MSE
    >>> step = per_example_grads(Linear(1, 1, bias=False), MSE())
    >>> values, grads = step({"weight": torch.ones(1, 1)}, torch.tensor([[1.0], [2.0]]), torch.zeros(2, 1))
    >>> grads["weight"].flatten()
    tensor([2., 8.])
    """
    return PerExample(value_and_grads(net, loss), False)


@adds_location("per_example_norms")
def per_example_norms(net: Layer, loss: Loss) -> PerExample:
    """Compute the norm of the gradient of each row's loss, without storing the gradients.

        normᵢ = ‖∂ loss(net(params, xᵢ), targetᵢ) / ∂ params‖ over all params together

    The gradients of ``Linear``, convolutions and ``Embedding`` are formed only where that takes less work, for a few rows at a
    time. The gradients of other layers are formed for one layer at a time.

    The norms of wide Linears take a third to a seventh of the time of ``per_example_grads`` and their norms. In small nets and in
    convolutions they take about as long: most of the time is spent in the forward pass, or in the products that compute the
    gradients.

    Args:
        net: A net whose rows do not depend on each other.
        loss: A loss with one value.

    Returns:
        A function ``(params, x, target, rng=None) -> (values, norms)``, both (N,).

    Raises:
        ValueError: If ``net`` or ``loss`` is ``batch_dependent``, or ``value_and_grads`` rejects them.

    References:
        Goodfellow 2015, "Efficient per-example gradient computations".

    >>> from funcnet.layers.linear.linear import Linear
    >>> from funcnet.losses.regression import MSE
    >>> step = per_example_norms(Linear(1, 1, bias=False), MSE())
    >>> values, norms = step({"weight": torch.ones(1, 1)}, torch.tensor([[1.0], [2.0]]), torch.zeros(2, 1))
    >>> norms
    tensor([2., 8.])
    """
    return PerExample(value_and_grads(net, loss), True)
