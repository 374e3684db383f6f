"""Repetition: many copies of one layer.

    ensemble   y[i], c[i] = f(p[i], x)        gp[i], g[i] = f's vjp(p[i], c[i], gy[i])        gx = Σ g[i]

i = 1 ... n numbers the members, in a new first axis of the params' leaves, of y, and of the cache; with an x for each member,
x[i] stands for x and gx[i] = g[i].
"""

from collections.abc import Callable, Iterator
from typing import Any, Self, overload

import torch
from attrs import Factory, field
from torch import Tensor

from funcnet import random, tree
from funcnet.combinators import children
from funcnet.errors import flag, instances, size, wrong
from funcnet.layer import Cache, Layer, Params, frozen
from funcnet.losses.loss import Loss
from funcnet.random import Key
from funcnet.tree import Tree


def _stack(trees: list[Tree]) -> Tree:
    return tree.map(lambda *leaves: torch.stack(leaves), *trees)


def over_members(n: int, f: Callable[..., Any], *arguments: Tree, shares: tuple[int, ...] = ()) -> Any:
    """Call f for all n members at once, by ``vmap`` over the first axis of the arguments, but of those that are shared.

    ``vmap`` knows tensors alone, so whatever else the trees hold (shapes in caches, absent gradients) goes around it.
    """
    columns = [tree.columns(argument)[0] for argument in arguments]
    axes = [None if i in shares else 0 for i, column in enumerate(columns) for leaf in column if isinstance(leaf, Tensor)]
    tensors = [leaf for column in columns for leaf in column if isinstance(leaf, Tensor)]
    _check(n, [leaf for leaf, axis in zip(tensors, axes, strict=True) if axis == 0])
    results: list[Tree] = []

    def on_tensors(mapped: list[Tensor]) -> list[Tensor]:
        left = iter(mapped[1:])
        results.append(f(*[_with_tensors(argument, left) for argument in arguments]))
        return [leaf for leaf in tree.columns(results[0])[0] if isinstance(leaf, Tensor)]

    members = torch.empty(n, 0)  # so that there is an axis to go over where all else is shared
    out = children.at("ensemble", torch.func.vmap(on_tensors, in_dims=([0, *axes],)), [members, *tensors])
    return _with_tensors(results[0], iter(out))


def _with_tensors(like: Tree, tensors: Iterator[Tensor]) -> Tree:
    """Put tensors, taken in order, into the places of a tree's tensors."""
    return tree.fill(like, iter([next(tensors) if isinstance(leaf, Tensor) else leaf for leaf in tree.columns(like)[0]]))


def _check(n: int, tensors: list[Tensor]) -> None:
    sizes = {tuple(tensor.shape[:1]) for tensor in tensors}
    if not sizes <= {(n,)}:
        got = ", ".join(sorted(str(*size) if size else "none" for size in sizes))
        raise wrong("ensemble", f"the first axis of every tensor that is not shared must be n={n}", f"sizes {got}")


@frozen
class Ensemble(Layer):
    """n members of one layer at once, each with params of its own; made by ``ensemble``.

    Params   the layer's, every leaf with a first axis of n. Member i is initialized with the key ``fold_in(rng, i)``.
    Cache    the layer's, every tensor with a first axis of n.
    Raises   ``ValueError`` for n below 1, and for params or an unshared ``x`` whose first axes are not n; the layer's own errors
             get a note.
    """

    layer: Layer = field(validator=children.layers_only)
    n: int = field(validator=size)
    shared_input: bool = field(default=True, validator=flag)

    @property
    def stochastic(self) -> bool:
        return self.layer.stochastic

    @property
    def mixes_batch(self) -> bool:
        return True

    def init(self, rng: Key | int) -> Params:
        return _stack([self.layer.init(random.fold_in(rng, i)) for i in range(self.n)])

    def apply(self, params: Params, x: Any, rng: Key | int | None = None) -> tuple[Any, Cache]:
        shares = (1,) if self.shared_input else ()
        y, cache = over_members(self.n, self.layer.apply, params, x, *self._keys(rng), shares=shares)
        return y, cache

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Params, Any]:
        gparams, gx = over_members(self.n, self.layer.vjp, params, cache, gy)
        return gparams, self._gathered(gx)

    def grads(self, params: Params, cache: Cache, gy: Any) -> Params:
        return over_members(self.n, self.layer.grads, params, cache, gy)

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        return self._gathered(over_members(self.n, self.layer.input_grad, params, cache, gy))

    def update_stats(self, params: Params, cache: Cache) -> Params:
        return over_members(self.n, self.layer.update_stats, params, cache)

    def inference(self) -> Self:
        return self.replace(layer=self.layer.inference())

    def __repr__(self) -> str:
        words = [repr(self.layer), repr(self.n)] + ["shared_input=False"] * (not self.shared_input)
        return f"ensemble({', '.join(words)})"

    def _keys(self, rng: Key | int | None) -> list[Tensor]:
        """Return a key for each member, where the layer takes one and there is one."""
        if rng is None or not self.stochastic:
            return []
        key = random.as_key(rng)
        return [random.fold_in(key, torch.arange(self.n, device=key.device))]

    def _gathered(self, gx: Any) -> Any:
        return tree.map(lambda g: g.sum(0), gx) if self.shared_input else gx

    def _shapes(self) -> None:
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
        value, cache = over_members(self.n, self.loss.forward, y, target, shares=(1,))
        return value, cache

    def backward(self, cache: Cache, g: Tensor | None = None) -> Tensor:
        gy: Tensor = over_members(self.n, self.loss.backward, cache, *([] if g is None else [g]))
        return gy

    def target_grad(self, cache: Cache, g: Tensor) -> Tensor | None:
        gtarget: Tensor | None = over_members(self.n, self.loss.target_grad, cache, g)
        return None if gtarget is None else gtarget.sum(0)

    def value_and_grad(self, y: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        value, gy = over_members(self.n, self.loss.value_and_grad, y, target, shares=(1,))
        return value, gy

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
