"""Layout: a layer on (N, channels, ...) for an x that has its channels last, by views.

y = M⁻¹ f(p, M x)      gp, gx = gp, M⁻¹ g  where gp, g = f's vjp of M gy      M x = x, its last axis at the place of the channels
"""

from typing import Any, Self

from attrs import field
from torch import Tensor

from funcnet import random, tree
from funcnet.combinators import children
from funcnet.contract import Cache, Layer, Params, frozen
from funcnet.errors import describe, size, value_error, whole
from funcnet.random import Key


@frozen
class ChannelsLast(children.Wrapper):
    """A layer on tensors whose channels are the last axis; made by ``channels_last``.

    Params   the layer's.
    Cache    the layer's.
    Raises   ``ValueError`` for an ``x`` without an axis ``dim``; the layer's own errors, which speak of the x it gets, a note.
    """

    layer: Layer = field(validator=children.layers_only)
    dim: int = field(default=1, validator=whole(0))

    @property
    def has_running_stats(self) -> bool:
        return self.layer.has_running_stats

    def init(self, rng: Key | int) -> Params:
        return self.layer.init(rng)

    def apply(self, params: Params, x: Any, rng: Key | int | None = None) -> tuple[Any, Cache]:
        arguments: Any = (params, self._moved(x)) if rng is None else (params, self._moved(x), rng)
        y, cache = children.at(self._where(), self.layer.apply, *arguments)
        return self._back(y), cache

    def __call__(self, params: Params, x: Any, rng: Key | int | None = None) -> Any:
        return self._back(children.at(self._where(), self.layer, params, self._moved(x), rng))

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Params, Any]:
        gparams, g = self.layer.vjp(params, cache, self._there(gy))
        return gparams, self._back(g)

    def grads(self, params: Params, cache: Cache, gy: Any) -> Params:
        return self.layer.grads(params, cache, self._there(gy))

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        return self._back(self.layer.input_grad(params, cache, self._there(gy)))

    def update_stats(self, params: Params, cache: Cache) -> Params:
        return self.layer.update_stats(params, cache)

    def infer(self, x: Any) -> tuple[Self, Any]:
        layer, y = children.at(self._where(), self.layer.infer, self._moved(x))
        return self.replace(layer=layer), self._back(y)

    def inference(self) -> Self:
        return self.replace(layer=self.layer.inference())

    def __repr__(self) -> str:
        return f"channels_last({self.layer!r}{'' if self.dim == 1 else f', {self.dim}'})"

    def _where(self) -> str:
        return f"channels_last, which hands on x with its last axis as axis {self.dim}"

    def _moved(self, x: Any) -> Any:
        """Return x as the layer takes it."""
        if any(leaf.dim() <= self.dim for leaf in tree.leaves(x)):
            raise value_error(self, f"x must have an axis {self.dim}", x)
        return self._there(x)

    def _there(self, values: Any) -> Any:
        """Put last axes at ``dim``; what has no axis there has no channels."""
        return tree.map(lambda leaf: leaf.movedim(-1, self.dim) if leaf.dim() > self.dim else leaf, values)

    def _back(self, values: Any) -> Any:
        """Put axes ``dim`` last: the inverse of ``_there``."""
        return tree.map(lambda leaf: leaf.movedim(self.dim, -1) if leaf.dim() > self.dim else leaf, values)

    def param_shapes(self) -> None:
        return None


def channels_last(layer: Layer, dim: int = 1) -> ChannelsLast:
    """Give a layer, or a net, on (N, channels, ...) an x that is (N, ..., channels), and its y the same order.

    ``channels_last(serial(Conv2d(3, 8, 3), BatchNorm2d(8), MaxPool2d(2)))`` takes and gives (N, height, width, channels). The
    last axis of every tensor of x goes to axis ``dim``, where the layer has its channels, and axis ``dim`` of every tensor of y
    goes last: by views, so that nothing is copied where kernels take any order in memory, as those of convolution and pooling
    do. ``dim`` is 1 with a batch axis, and 0 without, which no shape tells: ``channels_last(Conv2d(3, 8, 3), 0)`` takes one
    (height, width, channels). A y without an axis ``dim`` stays as it is, and so does (N, features). Params, and what a key
    draws, are the layer's own.
    """
    return ChannelsLast(layer, dim)


@frozen
class MapOver(children.Wrapper):
    """A layer on a batch whose axis is the first ``axes`` axes of x, as one; made by ``map_over`` or ``time_distributed``.

    Params   the layer's.
    Cache    the layer's, and the sizes of the axes.
    Raises   ``ValueError`` when ``x`` does not have the axes; the layer's own errors get a note.
    """

    layer: Layer = field(validator=children.layers_only)
    axes: int = field(default=2, validator=size)

    def init(self, rng: Key | int) -> Params:
        return self.layer.init(random.fold_in(rng, 0))

    def apply(self, params: Params, x: Any, rng: Key | int | None = None) -> tuple[Any, Cache]:
        lead = self._lead(x)
        y, cache = children.at("map_over", children.run, self.layer, params, self._merged(x), rng, 0)
        return self._parted(y, lead), (cache, lead)

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Params, Any]:
        gparams, gx = self.layer.vjp(params, cache[0], self._merged(gy))
        return gparams, self._parted(gx, cache[1])

    def grads(self, params: Params, cache: Cache, gy: Any) -> Params:
        return self.layer.grads(params, cache[0], self._merged(gy))

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        return self._parted(self.layer.input_grad(params, cache[0], self._merged(gy)), cache[1])

    def update_stats(self, params: Params, cache: Cache) -> Params:
        return self.layer.update_stats(params, cache[0])

    def infer(self, x: Any) -> tuple[Self, Any]:
        lead = self._lead(x)
        layer, y = children.at("map_over", self.layer.infer, self._merged(x))
        return self.replace(layer=layer), self._parted(y, lead)

    def inference(self) -> Self:
        return self.replace(layer=self.layer.inference())

    def __repr__(self) -> str:
        return f"map_over({self.layer!r}{'' if self.axes == 2 else f', {self.axes}'})"

    def _lead(self, x: Any) -> tuple[int, ...]:
        """Return the sizes of the axes that are made one."""
        sizes = {tuple(leaf.shape[: self.axes]) for leaf in tree.leaves(x)}
        if len(sizes) != 1 or any(len(one) < self.axes for one in sizes):
            raise value_error("map_over", f"x must have {self.axes} leading axes, the same in all its parts", describe(x))
        return sizes.pop()

    def _merged(self, values: Any) -> Any:
        return tree.map(lambda leaf: leaf.flatten(0, self.axes - 1), values)

    def _parted(self, values: Any, lead: tuple[int, ...]) -> Any:
        return tree.map(lambda leaf: _reshaped(leaf, lead), values)

    def param_shapes(self) -> None:
        return None


def _reshaped(leaf: Tensor, lead: tuple[int, ...]) -> Tensor:
    return leaf.reshape(*lead, *leaf.shape[1:])


def map_over(layer: Layer, axes: int = 2) -> MapOver:
    """Give a layer the first ``axes`` axes of x as its one batch axis, and split them again after it."""
    return MapOver(layer, axes)


def time_distributed(layer: Layer) -> MapOver:
    """Apply a layer at every step of (N, T, ...) or (T, N, ...), all at once: ``map_over(layer, 2)``."""
    return MapOver(layer, 2)
