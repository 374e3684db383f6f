"""Ensembles: many members of one layer at once.

    y[i], c[i] = f.apply(p[i], x)        gp[i], g[i] = f.vjp(p[i], c[i], gy[i])        gx = Σ g[i]

i = 1 ... n is the number of a member, and the index along the first axis of the leaves of params, y and cache. With one x for
each member, x[i] replaces x, and gx[i] = g[i].
"""

from collections.abc import Callable
from typing import Any, Self, overload

import torch
from attrs import Factory, field
from torch import Tensor

from funcnet import random, tree
from funcnet.combinator import Rewrite, errors_at, layers_only
from funcnet.combinators import batching, member_losses
from funcnet.combinators.stacking import unstack
from funcnet.combinators.vmapping import mapped, require_members
from funcnet.contract import Cache, Grads, Layer, Params, Rng
from funcnet.errors import flag, instances, number_of_parts
from funcnet.flattening import Tree
from funcnet.losses.loss import Loss
from funcnet.losses.parts import Part
from funcnet.random.keys import Key
from funcnet.value import frozen
from funcnet.wrapper import Wrapper


def _stack(trees: list[Tree]) -> Tree:
    return tree.map(lambda *leaves: torch.stack(leaves), *trees)


@frozen
class Ensemble(Wrapper):
    """n members of one layer at once, each with its own params; made by ``ensemble``.

        y[i], c[i] = f.apply(p[i], x)        gp[i], g[i] = f.vjp(p[i], c[i], gy[i])        gx = Σ g[i]

    Args:
        layer: The layer f.
        n: Number of members.
        shared_input: Whether all members get the same x; otherwise x has a first axis of n, and gx[i] = g[i].

    Params:
        The layer's params, every leaf with a first axis of n. Member i draws its params with the key ``fold_in(rng, i)``.

    Cache:
        The layer's cache, every tensor except a shared x with a first axis of n.

    Raises:
        ValueError: If the first axis of params, or of an x that is not shared, is not n.
    """

    label = "ensemble"
    computes_as_one = True

    layer: Layer = field(validator=layers_only)
    n: int = field(validator=number_of_parts)
    shared_input: bool = field(default=True, validator=flag)

    _batched: Layer = field(init=False, eq=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_batched", batching.batched(self.layer, self.n, self.shared_input))

    @property
    def batch_dependent(self) -> bool:
        return True

    def init(self, rng: Key | int) -> Params:
        with errors_at(self, ""):
            made: Params = _stack([self.layer.init(random.fold_in(rng, i)) for i in range(self.n)])
            return made

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        y, cache = self._forward(self._batched.apply, params, x, rng)
        return y, cache

    def __call__(self, params: Params, x: Any, rng: Rng = None) -> Any:
        return self._forward(self._batched, params, x, rng)

    def _forward(self, verb: Callable[..., Any], params: Params, x: Any, rng: Rng) -> Any:
        if not self.shared_input:
            require_members(self.n, x)
        with errors_at(self, ""):
            try:
                return verb(params, x, rng)
            except Exception as error:
                explained = self._explained(error, (params, x, rng))
            raise explained  # outside of the handler, which would replace the context of the error

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        with errors_at(self, ""):
            return self._batched.vjp(params, cache, gy)

    def grads(self, params: Params, cache: Cache, gy: Any) -> Grads:
        with errors_at(self, ""):
            return self._batched.grads(params, cache, gy)

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        with errors_at(self, ""):
            return self._batched.input_grad(params, cache, gy)

    def update_stats(self, params: Params, cache: Cache) -> Params:
        with errors_at(self, ""):
            return self._batched.update_stats(params, cache)

    def infer(self, x: Any) -> tuple[Self, Any]:
        if not self.shared_input:
            require_members(self.n, x)
            x = tree.map(lambda leaf: leaf[0], x)
        with errors_at(self, ""):
            layer, y = self.layer.infer(x)
        return self.replace(layer=layer), tree.map(lambda leaf: leaf.expand(self.n, *leaf.shape), y)

    def map_with_params(self, f: Rewrite, params: Params) -> tuple[Self, Params]:
        """Rewrite every member; all of them become the same layer."""
        pairs = [f(self.layer, p) for p in unstack(self.label, params, self.n)]
        return self.replace(layer=pairs[0][0]), _stack([p for _, p in pairs])

    def __repr__(self) -> str:
        words = [repr(self.layer), repr(self.n)] + ["shared_input=False"] * (not self.shared_input)
        return f"ensemble({', '.join(words)})"

    def _explained(self, error: Exception, arguments: Any) -> Exception:
        """Return the error of a single member, which shows the shapes of that member."""
        try:
            batching.Mapped(self.layer, self.n, self.shared_input).apply(*arguments)
        except Exception as explained:
            return explained
        return error


@frozen
class EnsembleLoss(Loss):
    """A separate loss for each of the n members of an ensemble; made by ``ensemble``.

        value[i] = ℓ(y[i], target)      gy[i] = ∂ value[i] / ∂ y[i]

    Args:
        loss: The loss ℓ.
        n: Number of members.

    Raises:
        ValueError: If the first axis of y is not n.
    """

    loss: Loss = field(validator=instances(Loss, "a loss"))
    n: int = field(validator=number_of_parts)

    reduction: str = field(init=False, default=Factory(lambda value: value.loss.reduction, takes_self=True))

    def forward(self, y: Tensor, target: Tensor) -> tuple[Tensor, Cache]:
        with errors_at(self, ""):
            value, cache = mapped(self.n, self.loss.forward, y, target, shares=(1,))
        return value, cache

    def backward(self, cache: Cache, g: Tensor | None = None) -> Tensor:
        gy: Tensor = mapped(self.n, self.loss.backward, cache, *([] if g is None else [g]))
        return gy

    def target_grad(self, cache: Cache, g: Tensor) -> Tensor | None:
        gtarget: Tensor | None = mapped(self.n, self.loss.target_grad, cache, g)
        return None if gtarget is None else gtarget.sum(0)

    def value_and_grad(self, y: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        with errors_at(self, ""):
            return member_losses.value_and_grad(self.loss, self.n, y, target)

    def forward_parts(self, y: Any, target: Any) -> tuple[tuple[Tensor, ...], Cache]:
        with errors_at(self, ""):
            values, cache = mapped(self.n, self.loss.forward_parts, y, target, shares=(1,))
        return values, cache

    def backward_parts(self, cache: Cache, gs: tuple[float | Tensor, ...]) -> Any:
        gs = tuple([g.expand(self.n) if isinstance(g, Tensor) and not g.dim() else g for g in gs])
        return mapped(self.n, self.loss.backward_parts, cache, gs)

    @property
    def batch_dependent(self) -> bool:
        return self.loss.batch_dependent

    @property
    def part_count(self) -> int:
        return self.loss.part_count

    def part_list(self) -> tuple[Part, ...]:
        return self.loss.part_list()

    def weight_of(self, target: Any) -> float | Tensor:
        return self.loss.weight_of(target)

    def location(self, name: str) -> str:
        """Return the location that errors name."""
        return "ensemble"

    def __repr__(self) -> str:
        return f"ensemble({self.loss!r}, {self.n!r})"


@overload
def ensemble(layer: Layer, n: int, *, shared_input: bool = True) -> Ensemble: ...
@overload
def ensemble(layer: Loss, n: int) -> EnsembleLoss: ...
def ensemble(layer: Layer | Loss, n: int, *, shared_input: bool = True) -> Ensemble | EnsembleLoss:
    """Run n members of a layer at once, each with its own params; or build the loss that trains them.

        y[i], c[i] = f.apply(p[i], x)        gp[i], g[i] = f.vjp(p[i], c[i], gy[i])        gx = Σ g[i]

    For a loss ℓ, value[i] = ℓ(y[i], target), and gy[i] is the gradient of value[i]. ``train_step(ensemble(net, n), ensemble(loss,
    n), opt)`` trains every member as if it were trained separately, provided that ``opt`` treats each element separately. A
    clipped norm, for example, is the norm of all members together.

    Args:
        layer: The layer f, or the loss.
        n: Number of members.
        shared_input: Whether all members get the same x; otherwise x has a first axis of n, and gx[i] = g[i].

    Params:
        The layer's params, every leaf with a first axis of n. Member i draws its params with the key ``fold_in(rng, i)``.

    Cache:
        The layer's cache, every tensor except a shared x with a first axis of n.

    Raises:
        ValueError: If n is below 1, or the first axis of params, or of an x that is not shared, is not n.

    >>> import torch
    >>> from funcnet.layers.linear.linear import Linear
    >>> net = ensemble(Linear(3, 4), 5)
    >>> net(net.init(0), torch.ones(2, 3)).shape
    torch.Size([5, 2, 4])
    """
    return EnsembleLoss(layer, n) if isinstance(layer, Loss) else Ensemble(layer, n, shared_input)
