"""Per example: the gradient of the loss of each row by itself, or only its norm.

    gradsᵢ = ∂ loss(net(params, xᵢ), targetᵢ) / ∂ params      normᵢ = ‖gradsᵢ‖, over all params

The net runs on rows under ``vmap``, each a batch of one. The norm of a Linear is found without its gradient (Goodfellow 2015):

    ‖gyᵀ x‖² = Σ (x xᵀ) ⊙ (gy gyᵀ)      of a single row: ‖gy‖² ‖x‖²

That of an Embedding is Σ ⟨gyᵢ, gyⱼ⟩ over the i, j with xᵢ = xⱼ.
"""

from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet import random, tree
from funcnet.combinator import Combinator, has_params
from funcnet.combinators.batching import mapped
from funcnet.combinators.branching import Branching
from funcnet.combinators.dag import Graph
from funcnet.combinators.sequential import Serial
from funcnet.contract import Cache, Layer, Params
from funcnet.errors import describe, value_error
from funcnet.layers.embedding.embedding import Embedding
from funcnet.layers.linear.linear import Linear
from funcnet.losses.loss import Loss
from funcnet.precision import in_single
from funcnet.random.keys import Key
from funcnet.stand_ins import StandIn, stand_in_for
from funcnet.train import ValueAndGrads, value_and_grads
from funcnet.value import Value, frozen
from funcnet.wrapper import Rearranging

_CALLS_EACH_CHILD_ONCE = (Serial, Branching, Graph, Rearranging)


def _of_rows(value: Any, attribute: Any, step: ValueAndGrads) -> None:
    if step.net.batch_dependent:
        rule = "a row of the output may not depend on other rows, as it does with batch statistics"
        raise value_error(value, rule, "a net that is batch_dependent")


@frozen
class PerExample(Value):
    """The losses of a net on rows, and their gradients or the norms of these; made by ``per_example_grads`` and ``..._norms``."""

    step: ValueAndGrads = field(validator=_of_rows)
    only_norms: bool
    _measured: ValueAndGrads = field(init=False, eq=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_measured", self.step.replace(net=_measuring(self.step.net)))

    def __reduce__(self) -> tuple[Any, ...]:
        return PerExample, (self.step, self.only_norms)

    def __call__(self, params: Params, x: Any, target: Any, rng: Key | int | None = None) -> tuple[Tensor, Any]:
        n = self._rows(x, target)
        rows, targets = tree.map(lambda leaf: leaf.unsqueeze(1), (x, target))
        keys = self._keys(rng, n)
        one = self._norm if self.only_norms else self._grads
        found: tuple[Tensor, Any] = mapped(n, lambda *row: one(params, *row), rows, targets, *keys)
        return found

    def _grads(self, params: Params, x: Any, target: Any, rng: Any = None) -> tuple[Tensor, Params]:
        return self.step(params, x, target, rng)[:2]

    def _norm(self, params: Params, x: Any, target: Any, rng: Any = None) -> tuple[Tensor, Tensor]:
        value, squares, _ = self._measured(params, x, target, rng)
        return value, torch.stack([value.new_zeros(()), *tree.leaves(squares)]).sum().sqrt()

    def _rows(self, x: Any, target: Any) -> int:
        sizes = {leaf.shape[0] if leaf.dim() else -1 for leaf in tree.leaves((x, target))}
        if len(sizes) != 1 or not sizes.isdisjoint({-1, 0}):
            rule = "x and target must have one number of rows, at least 1"
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
    """A layer that gives the square of the norm of its gradient in the place of the gradient."""

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Params, Any]:
        return self.grads(params, cache, gy), self.original.input_grad(params, cache, gy)

    def grads(self, params: Params, cache: Cache, gy: Any) -> Params:
        return _square(self.original, params, cache, gy) if has_params(params) else params


def _measuring(layer: Layer) -> Layer:
    """Return the net with measured layers; a combinator that may run a layer twice is measured as a whole."""
    if isinstance(layer, Combinator) and isinstance(layer, _CALLS_EACH_CHILD_ONCE):
        return layer.with_children({name: _measuring(child) for name, child in layer.children().items()})
    return stand_in_for(layer, _Measured)


def _square(layer: Layer, params: Params, cache: Cache, gy: Any) -> Tensor | None:
    """Return ‖gp‖² of one layer, without gp where that takes less work; ``None`` where no param has a gradient."""
    if type(layer) is Linear:
        return _square_of_linear(layer, cache, gy)
    if type(layer) is Embedding and layer.max_norm is None and cache.numel() <= layer.num_embeddings:
        return _square_of_embedding(layer, cache, gy)
    return _sum_of_squares(layer.grads(params, cache, gy))


def _sum_of_squares(values: Any) -> Tensor | None:
    squares = [in_single(leaf).square().sum() for leaf in tree.leaves(values)]
    return torch.stack(squares).sum() if squares else None


# For t rows of one example the products of rows take t² (in + out), the gradient t in out: 8 rows of 64 to 64 a tenth.
def _square_of_linear(layer: Linear, x: Tensor, gy: Tensor) -> Tensor:
    x, gy = in_single(x.reshape(-1, x.shape[-1])), in_single(gy.reshape(-1, gy.shape[-1]))
    t, size = x.shape[0], x.shape[1] * gy.shape[1]
    if t == 1:
        square = x.square().sum() * gy.square().sum()
    elif t * (x.shape[1] + gy.shape[1]) <= size:
        square = ((x @ x.mT) * (gy @ gy.mT)).sum()
    else:
        square = (gy.mT @ x).square().sum()
    return square + gy.sum(0).square().sum() if layer.bias else square


def _square_of_embedding(layer: Embedding, x: Tensor, gy: Tensor) -> Tensor:
    i, g = x.reshape(-1), in_single(gy.reshape(-1, gy.shape[-1]))
    if layer.padding_idx is not None:
        g = g.masked_fill((i == layer.padding_row).unsqueeze(1), 0.0)
    return torch.where(i.unsqueeze(0) == i.unsqueeze(1), g @ g.mT, 0.0).sum()


def per_example_grads(net: Layer, loss: Loss) -> PerExample:
    """Make the function ``(params, x, target, rng=None) -> (values, grads)`` of each row by itself.

    ``values[i]`` and the entries i of ``grads``, which has the structure of params and a first axis more, are what
    ``value_and_grads`` gives of ``x[i:i + 1]`` and ``target[i:i + 1]``. Row i of a stochastic net has the key ``fold_in(rng,
    i)``.

    Args:
        net: A net whose rows do not depend on each other.
        loss: A loss with one value.

    Raises:
        ValueError: As ``value_and_grads``; for a ``net`` that is ``batch_dependent``, and x and target of several numbers of
        rows.
    """
    return PerExample(value_and_grads(net, loss), False)


def per_example_norms(net: Layer, loss: Loss) -> PerExample:
    """Make the function ``(params, x, target, rng=None) -> (values, norms)`` of each row by itself: values and norms (N,).

    ``norms[i]`` is the norm of all gradients of row i together, as for clipping in differentially private training. The
    gradients of ``Linear`` and ``Embedding`` are not formed, unless that takes less work; those of other layers only one layer
    at a time.

    Args:
        net: A net whose rows do not depend on each other.
        loss: A loss with one value.

    Raises:
        ValueError: As ``per_example_grads``.
    """
    return PerExample(value_and_grads(net, loss), True)
