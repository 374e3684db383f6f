"""Repetition: many copies of one layer.

    ensemble   y[i], c[i] = f(p[i], x)        gp[i], g[i] = f's vjp(p[i], c[i], gy[i])        gx = Σ g[i]

i = 1 ... n numbers the members, in a new first axis of the params' leaves, of y, and of the cache; with an x for each member,
x[i] stands for x and gx[i] = g[i].
"""

from typing import Any, Self, overload

import torch
from attrs import Factory, field
from torch import Tensor

from funcnet import random, tree
from funcnet.combinators import batching as members
from funcnet.combinators import children
from funcnet.contract import Cache, Layer, Params, frozen
from funcnet.errors import flag, instances, size
from funcnet.losses.loss import Loss
from funcnet.random import Key
from funcnet.tree import Tree


def _stack(trees: list[Tree]) -> Tree:
    return tree.map(lambda *leaves: torch.stack(leaves), *trees)


@frozen
class Ensemble(Layer):
    """n members of one layer at once, each with params of its own; made by ``ensemble``.

    Params   the layer's, every leaf with a first axis of n. Member i is initialized with the key ``fold_in(rng, i)``.
    Cache    the layer's, every tensor with a first axis of n, but for an ``x`` that is shared.
    Raises   ``ValueError`` for n below 1, and for params or an unshared ``x`` whose first axes are not n; the layer's own errors
             get a note.
    """

    layer: Layer = field(validator=children.layers_only)
    n: int = field(validator=size)
    shared_input: bool = field(default=True, validator=flag)

    _together: Layer = field(init=False, eq=False, default=Factory(lambda self: self._arranged(), takes_self=True))

    @property
    def has_running_stats(self) -> bool:
        return self.layer.has_running_stats

    @property
    def stochastic(self) -> bool:
        return self.layer.stochastic

    @property
    def batch_dependent(self) -> bool:
        return True

    def init(self, rng: Key | int) -> Params:
        return _stack([self.layer.init(random.fold_in(rng, i)) for i in range(self.n)])

    def apply(self, params: Params, x: Any, rng: Key | int | None = None) -> tuple[Any, Cache]:
        if not self.shared_input:
            members.require_members(self.n, x)
        arguments: Any = (params, x, rng) if self.stochastic else (params, x)
        try:
            return self._together.apply(*arguments)
        except Exception as error:
            raise self._explained(error, arguments) from None

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Params, Any]:
        return self._together.vjp(params, cache, gy)

    def grads(self, params: Params, cache: Cache, gy: Any) -> Params:
        return self._together.grads(params, cache, gy)

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        return self._together.input_grad(params, cache, gy)

    def update_stats(self, params: Params, cache: Cache) -> Params:
        return self._together.update_stats(params, cache)

    def infer(self, x: Any) -> tuple[Self, Any]:
        if not self.shared_input:
            members.require_members(self.n, x)
            x = tree.map(lambda leaf: leaf[0], x)
        layer, y = children.at("ensemble", self.layer.infer, x)
        return self.replace(layer=layer), tree.map(lambda leaf: leaf.expand(self.n, *leaf.shape), y)

    def inference(self) -> Self:
        return self.replace(layer=self.layer.inference())

    def __repr__(self) -> str:
        words = [repr(self.layer), repr(self.n)] + ["shared_input=False"] * (not self.shared_input)
        return f"ensemble({', '.join(words)})"

    def _arranged(self) -> Layer:
        return members.together(self.layer, self.n, self.shared_input)

    def _explained(self, error: Exception, arguments: Any) -> Exception:
        """Have a member say what is wrong, whose error speaks of its own shapes."""
        try:
            members.Mapped(self.layer, self.n, self.shared_input).apply(*arguments)
        except Exception as told:
            return told
        return error

    def param_shapes(self) -> None:
        return None


@frozen
class EnsembleLoss(Loss):
    """A loss for the n members of an ensemble, each on its own; made by ``ensemble``.

    ``value`` has an entry for each member, and ``gy[i]`` is the gradient of member i's loss. All members have one target.

    Raises   ``ValueError`` for n below 1, and when the first axis of ``y`` is not n; the loss's own errors get a note.
    """

    loss: Loss = field(validator=instances(Loss, "a loss"))
    n: int = field(validator=size)

    reduction: str = field(init=False, default=Factory(lambda value: value.loss.reduction, takes_self=True))

    def forward(self, y: Tensor, target: Tensor) -> tuple[Tensor, Cache]:
        value, cache = members.mapped(self.n, self.loss.forward, y, target, shares=(1,))
        return value, cache

    def backward(self, cache: Cache, g: Tensor | None = None) -> Tensor:
        gy: Tensor = members.mapped(self.n, self.loss.backward, cache, *([] if g is None else [g]))
        return gy

    def target_grad(self, cache: Cache, g: Tensor) -> Tensor | None:
        gtarget: Tensor | None = members.mapped(self.n, self.loss.target_grad, cache, g)
        return None if gtarget is None else gtarget.sum(0)

    def value_and_grad(self, y: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        return members.value_and_grad(self.loss, self.n, y, target)

    def __repr__(self) -> str:
        return f"ensemble({self.loss!r}, {self.n!r})"


@overload
def ensemble(layer: Layer, n: int, *, shared_input: bool = True) -> Ensemble: ...
@overload
def ensemble(layer: Loss, n: int) -> EnsembleLoss: ...
def ensemble(layer: Layer | Loss, n: int, *, shared_input: bool = True) -> Ensemble | EnsembleLoss:
    """Make n members of a layer, with params of their own, that run at once; or of a loss, to train them with.

    ``ensemble(net, n)(params, x)`` gives one x to all members; with ``shared_input=False`` x has a first axis of n, an input for
    each. ``train_step(ensemble(net, n), ensemble(loss, n), opt)`` trains every member as it would be trained alone, as long as
    ``opt`` treats each number on its own (a clipped norm, for one, would be that of all members together).
    """
    return EnsembleLoss(layer, n) if isinstance(layer, Loss) else Ensemble(layer, n, shared_input)
