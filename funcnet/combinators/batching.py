"""Run the n members of an ensemble at once: with kernels for all members where they exist, else with ``vmap``.

    Linear       y[i] = x[i] w[i]ᵀ + b[i]      gw[i] = gy[i]ᵀ x[i]      gb[i] = Σ gy[i], over rows      gx[i] = gy[i] w[i]
                 with one x for all, and the w[i] stacked in W:  y = x Wᵀ,  gW = gyᵀ x,  Σ gx[i] = gy W
    activations  one call for the elements of all members
    Serial       one layer after the other
    LSTM         one member after the other; also other recurrent nets, attention and pooling of large x

The products are computed as w[i] x[i]ᵀ, which stores the rows of one feature next to each other: with MKL, 20 products of 25×25
by 25×100 take 31 µs this way, and 43 µs in the order of a Linear. A step of 20 nets 2-25-25-25-2 takes four times as long as a
step of one net, and 22 times as long with ``vmap``.

``vmap`` replaces kernels that it cannot batch. Forward and backward of 10 members, in ms, with ``vmap`` and one after the other:

    LSTM, 32 steps of 16×16 to 32     13     6        LSTM, 64 steps of 32×64 to 128    308    93
    GRU, 16 steps of 8×8 to 16         4     8        GRU, 64 steps of 32×64 to 128     235   161
    attention, 4×6×8                 1.0   1.3        attention, 8×64×128                56    31
    MaxPool2d, 64×16×28×28            55    15
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from funcnet import random, tree
from funcnet.checks import Misfit, check_gy
from funcnet.combinators.sequential import Serial
from funcnet.combinators.vmapping import mapped, require_members
from funcnet.contract import Cache, Grads, Layer, Params, Rng
from funcnet.flattening import Tree
from funcnet.kernels import linear
from funcnet.kernels.tracing import is_eager
from funcnet.layers.linear.linear import Linear
from funcnet.value import frozen
from funcnet.walking import walk

_LARGE = 1 << 15


def batched(layer: Layer, n: int, shared: bool) -> Layer:
    """Return a layer for n members: params, and x unless it is shared, have a first axis of n."""
    if type(layer) is Linear:
        return Linears(layer, n, shared)
    mode = layer.ensemble_mode
    if mode == "elementwise" and not shared:
        return layer
    if type(layer) is Serial and len(layer) and not layer.stochastic:
        return layer.replace(layers=tuple([batched(one, n, shared and i == 0) for i, one in enumerate(layer)]))
    is_looped = any([one.ensemble_mode == "loop" for _, one in walk(layer)])  # noqa: C419
    if is_looped or mode == "loop if large":
        return Looped(Mapped(layer, n, shared), 0 if is_looped else _LARGE)
    return Mapped(layer, n, shared)


class Members(Layer):
    """Base of layers for n members, which check their params themselves."""

    __slots__ = ()

    @property
    def trainable(self) -> bool:
        return True

    def param_shapes(self) -> None:
        return None


@frozen
class Linears(Members):
    """n Linears at once.

        y[i] = x[i] w[i]ᵀ + b[i]      gw[i] = gy[i]ᵀ x[i]      gb[i] = Σ gy[i], over rows      gx[i] = gy[i] w[i]

    Params:
        The Linear's params, every leaf with a first axis of n.

    Cache:
        ``x``, not copied.

    Raises:
        Misfit: If params or x do not fit. ``Ensemble`` then explains the error with a single member.
    """

    layer: Linear
    n: int
    shared: bool

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Tensor]:
        w, b = self._fitting(params, x)
        if self.shared:
            x2, w2 = x.reshape(-1, x.shape[-1]), w.reshape(-1, x.shape[-1])
            y = torch.mm(w2, x2.t()) if b is None else torch.addmm(b.reshape(-1, 1), w2, x2.t())
            return y.view(*w.shape[:2], -1).mT.reshape(self.n, *x.shape[:-1], w.shape[1]), x
        x3 = self._rows(x)
        y = torch.bmm(w, x3.mT) if b is None else torch.baddbmm(b.unsqueeze(2), w, x3.mT)
        return y.mT.reshape(*x.shape[:-1], w.shape[1]), x

    def vjp(self, params: Params, cache: Tensor, gy: Tensor) -> tuple[Grads, Tensor]:
        return self.grads(params, cache, gy), self.input_grad(params, cache, gy)

    def grads(self, params: Params, cache: Tensor, gy: Tensor) -> Grads:
        x, w = cache, self._weight(params, cache)
        g = self._gradient(gy, x)
        if self.shared:
            x2 = x.reshape(-1, x.shape[-1])
            gw = linear.linear(g.flatten(0, 1), x2.t().contiguous()).view(w.shape)  # 2 columns take 11 µs, and 35 with mm
        else:
            gw = torch.bmm(g, self._rows(x))
        return {"weight": gw, "bias": g.sum(2)} if self.layer.bias else {"weight": gw}

    def input_grad(self, params: Params, cache: Tensor, gy: Tensor) -> Tensor:
        x, w = cache, self._weight(params, cache)
        g = self._gradient(gy, x)
        if self.shared:
            return torch.mm(g.flatten(0, 1).t(), w.reshape(-1, w.shape[2])).reshape(x.shape)
        return torch.bmm(w.mT, g).mT.reshape(x.shape)

    def _rows(self, x: Tensor) -> Tensor:
        """Merge all axes between the first and the last."""
        return x if x.dim() == 3 else x.reshape(self.n, -1, x.shape[-1])

    def _fitting(self, params: Params, x: Tensor) -> tuple[Tensor, Any]:
        w = self._weight(params, x)
        b: Any = params["bias"] if self.layer.bias else None
        misfit = self.layer.bias and (b is None or b.shape != w.shape[:2] or b.is_cpu is not x.is_cpu or b.dtype is not w.dtype)
        if misfit or len(params) != 1 + self.layer.bias or x.shape[-1] != w.shape[2]:
            raise Misfit
        return w, b

    def _weight(self, params: Params, x: Tensor) -> Tensor:
        """Return the weights of all members, after checking shape and device, which kernels do not check."""
        w: Tensor = params["weight"]
        if w.shape != (self.n, self.layer.out_features, self.layer.in_features) or w.is_cpu is not x.is_cpu:
            raise Misfit
        return w

    def _gradient(self, gy: Tensor, x: Tensor) -> Tensor:
        """Return gy as (n, out, rows), the layout for the products."""
        rows = (self.n, *x.shape[:-1]) if self.shared else x.shape[:-1]
        return self._rows(check_gy(self, gy, (*rows, self.layer.out_features), x)).mT

    def __repr__(self) -> str:
        return f"ensemble({self.layer!r}, {self.n!r})"


@frozen
class Mapped(Members):
    """Any layer for n members at once, with ``vmap``.

    Params:
        The layer's params, every leaf with a first axis of n.

    Cache:
        The layer's cache, every tensor with a first axis of n.

    Raises:
        ValueError: If the first axis of params, or of an x that is not shared, is not n.
    """

    layer: Layer
    n: int
    shared: bool

    @property
    def trainable(self) -> bool:
        return self.layer.trainable

    @property
    def has_running_stats(self) -> bool:
        return self.layer.has_running_stats

    @property
    def stochastic(self) -> bool:
        return self.layer.stochastic

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        return self._forward(self.layer.apply, params, x, rng)  # type: ignore[no-any-return]

    def __call__(self, params: Params, x: Any, rng: Rng = None) -> Any:
        return self._forward(self.layer, params, x, rng)

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        gparams, gx = mapped(self.n, self.layer.vjp, params, cache, gy)
        return gparams, self._gathered(gx)

    def grads(self, params: Params, cache: Cache, gy: Any) -> Grads:
        made: Params = mapped(self.n, self.layer.grads, params, cache, gy)
        return made

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        return self._gathered(mapped(self.n, self.layer.input_grad, params, cache, gy))

    def update_stats(self, params: Params, cache: Cache) -> Params:
        made: Params = mapped(self.n, self.layer.update_stats, params, cache)
        return made

    def _forward(self, verb: Callable[..., Any], params: Params, x: Any, rng: Rng) -> Any:
        return mapped(self.n, verb, params, x, *self._keys(rng), shares=(1,) if self.shared else ())

    def _keys(self, rng: Rng) -> list[Tensor]:
        """Return the keys of the members as a list of one tensor, empty without a key or for a layer that is not stochastic."""
        if rng is None or not self.stochastic:
            return []
        key = random.as_key(rng)
        return [random.fold_in(key, torch.arange(self.n, device=key.device))]

    def _gathered(self, gx: Any) -> Any:
        return tree.map(lambda g: g.sum(0), gx) if self.shared else gx


@frozen
class Looped(Members):
    """A layer for n members: one after the other in eager mode if each x has at least ``least`` numbers, else with ``vmap``.

    Params:
        The layer's params, every leaf with a first axis of n.

    Cache:
        A dict: under ``"each"`` a tuple of the members' caches, or under ``"all"`` the cache of ``Mapped``.

    Raises:
        ValueError: If the first axis of params is not n.
    """

    all: Mapped
    least: int

    @property
    def trainable(self) -> bool:
        return self.all.trainable

    @property
    def has_running_stats(self) -> bool:
        return self.all.has_running_stats

    @property
    def stochastic(self) -> bool:
        return self.all.stochastic

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        if not self._is_looped(x):
            y, cache = self.all.apply(params, x, rng)
            return y, {"all": cache}
        each = [self.all.layer.apply(*one) for one in self._arguments(params, x, rng)]
        return _stack([y for y, _ in each]), {"each": tuple([cache for _, cache in each])}

    def __call__(self, params: Params, x: Any, rng: Rng = None) -> Any:
        if not self._is_looped(x):
            return self.all(params, x, rng)
        return _stack([self.all.layer(*one) for one in self._arguments(params, x, rng)])

    def _is_looped(self, x: Any) -> bool:
        numbers = max([leaf.numel() for leaf in tree.leaves(x)], default=0)
        return is_eager() and numbers >= self.least * (1 if self.all.shared else self.all.n)

    def _arguments(self, params: Params, x: Any, rng: Rng) -> Iterator[tuple[Any, ...]]:
        """Yield the arguments of each member."""
        require_members(self.all.n, params)
        keys = self.all._keys(rng)
        for i in range(self.all.n):
            yield _member(params, i), x if self.all.shared else _member(x, i), *[key[i] for key in keys]

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        if "all" in cache:
            return self.all.vjp(params, cache["all"], gy)
        gparams, gx = self._back(self.all.layer.vjp, params, cache, gy)
        return gparams, self.all._gathered(gx)

    def grads(self, params: Params, cache: Cache, gy: Any) -> Grads:
        if "all" in cache:
            return self.all.grads(params, cache["all"], gy)
        made: Params = self._back(self.all.layer.grads, params, cache, gy)
        return made

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        if "all" in cache:
            return self.all.input_grad(params, cache["all"], gy)
        return self.all._gathered(self._back(self.all.layer.input_grad, params, cache, gy))

    def update_stats(self, params: Params, cache: Cache) -> Params:
        if not self.has_running_stats:
            return params
        if "all" in cache:
            return self.all.update_stats(params, cache["all"])
        update = self.all.layer.update_stats
        made: Params = _stack([update(_member(params, i), one) for i, one in enumerate(cache["each"])])
        return made

    def _back(self, f: Callable[..., Any], params: Params, cache: Cache, gy: Any) -> Any:
        return _stack([f(_member(params, i), one, _member(gy, i)) for i, one in enumerate(cache["each"])])


def _member(values: Tree, i: int) -> Tree:
    return tree.map(lambda leaf: leaf[i], values)


def _stack(values: list[Tree]) -> Tree:
    return tree.map(lambda *leaves: torch.stack(leaves), *values)
