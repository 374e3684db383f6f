"""Stages: the methods of the layers of one stage, with the backward pass whole or in halves.

    B    gᵢ₋₁ = fᵢ's input_grad(pᵢ, cᵢ, gᵢ)      for the layers i of the stage, the last one first; cᵢ and gᵢ are kept
    W    gpᵢ  = fᵢ's grads(pᵢ, cᵢ, gᵢ)           at any later time

The stage is split layer by layer, also within combinators that pass gradients on. A layer that has only the default halves, which
compute the whole ``vjp``, and a layer or combinator whose ``grads`` repeats most of ``input_grad``, computes both in B.
"""

from collections.abc import Callable
from typing import Any

from funcnet import tree
from funcnet.combinator import Combinator, absent
from funcnet.combinators import runs
from funcnet.combinators.mixed_precision import MixedPrecision, with_dtypes_of
from funcnet.combinators.sequential import Serial
from funcnet.contract import Cache, Grads, Layer, Params, Rng
from funcnet.distributed.pipelining.cutting import CutNet, Elsewhere
from funcnet.places import OpenCast, Places, is_open
from funcnet.stand_ins import StandIn, stand_in_for

Later = list[Callable[[], Grads] | None]
"""Functions that compute the gradient of each place of a stage, or ``None``."""


class Deferring(StandIn):
    """A layer that computes the gradient of its input and defers the gradient of its params."""

    log: "Log"
    place: int
    goes_on: bool
    """Whether the gradient of the input is needed, because an earlier layer is trained."""

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        original = self.original
        if not self.goes_on:
            self.log.later[self.place] = lambda: original.grads(params, cache, gy)
            return gy
        if _has_halves(original):
            self.log.later[self.place] = lambda: original.grads(params, cache, gy)
            return original.input_grad(params, cache, gy)
        gparams, gx = original.vjp(params, cache, gy)
        self.log.later[self.place] = lambda: gparams
        return gx


def _has_halves(layer: Layer) -> bool:
    """Return whether the halves of a layer's ``vjp`` together cost about as much as the whole.

    The halves take 1.0 times as long as the whole for Linear and Conv2d, 1.5 to 1.7 times for attention, and 1.6 to 1.8 times
    for LSTM and GRU.
    """
    kind = type(layer)
    own = kind.grads is not Layer.grads and kind.input_grad is not Layer.input_grad
    return own and not layer.halves_share_work and not isinstance(layer, Combinator)


class Log:
    """The deferred work of the layers of a stage."""

    def __init__(self) -> None:
        self.later: Later = []


class Halves:
    """The backward pass of a stage in two halves."""

    def __init__(self, net: Serial, *, is_first: bool) -> None:
        self._log = Log()
        children = [self._deferring(child) for child in net.children().values()]
        if is_first and not runs.ends_of(net.layers):
            children = self._from_first_trained([*net.children().values()], children)
        self.net = net.with_children(dict(zip(net.children(), children, strict=True)))
        self.places = Places(self.net)
        for place, layer in enumerate(self.places.layers):
            if isinstance(layer, Deferring):
                object.__setattr__(layer, "place", place)

    def _deferring(self, layer: Layer, *, goes_on: bool = True) -> Layer:
        if not layer.trainable:
            return layer
        if is_open(layer) and goes_on:
            return layer.with_children({name: self._deferring(child) for name, child in layer.children().items()})
        if type(layer) is MixedPrecision and goes_on:
            return OpenCast(self._deferring(layer.layer), layer.dtype)
        return stand_in_for(layer, Deferring, log=self._log, place=-1, goes_on=goes_on)

    def _from_first_trained(self, layers: list[Layer], deferring: list[Layer]) -> list[Layer]:
        """Return the layers of the first stage; it needs no gradients before the first trained layer."""
        first = next((i for i, layer in enumerate(layers) if layer.trainable), len(layers))
        ends = [self._deferring(layer, goes_on=False) for layer in layers[first : first + 1]]
        return [*[Elsewhere()] * first, *ends, *deferring[first + 1 :]]

    def input_half(self, params: Params, cache: Cache, gy: Any) -> tuple[Any, Later]:
        """Return the gradient of the stage's input, and the deferred work for ``params_half``."""
        self._log.later = [None] * len(self.places.layers)
        gx = self.net.input_grad(params, cache, gy)
        later, self._log.later = self._log.later, []
        return gx, later

    def params_half(self, params: Params, later: Later) -> Params:
        """Return the gradients of the params."""
        entries = zip(self.places.entries(params), later, strict=True)
        made: Params = self.places.whole(iter([absent(one) if compute is None else compute() for one, compute in entries]))
        return made


class Stage:
    """The layers of one stage; ``params`` are those of ``CutNet.filled``, in the dtype of ``inside``."""

    def __init__(self, cut: CutNet, number: int, *, halves: bool) -> None:
        self.cut, self.number, self.net = cut, number, cut.net_of(number)
        self.is_first, self.is_last = number == 0, number == cut.size - 1
        self._halves = Halves(self.net, is_first=self.is_first) if halves else None
        self.has_running_stats = self.net.has_running_stats
        self._stats_net: Layer = self.net if cut.dtype is None else MixedPrecision(self.net, cut.dtype)

    def inside(self, values: Any) -> Any:
        """Return params, x or gy in the dtype of the net's computation."""
        return values if self.cut.dtype is None else tree.cast(values, self.cut.dtype)

    def forward(self, params: Params, x: Any, rng: Rng) -> tuple[Any, Cache]:
        """Return the output of the stage and its cache."""
        return self.net.apply(params, self.inside(x) if self.is_first else x, rng)

    def back(self, params: Params, cache: Cache, gy: Any) -> tuple[Any, Any, Later | None]:
        """Compute the backward pass; return gx, and the gradients of params or the deferred work for ``params_half``."""
        if self._halves is not None:
            gx, later = self._halves.input_half(params, cache, gy)
            return None if self.is_first else gx, None, later
        if self.is_first:
            return None, self.net.grads(params, cache, gy), None
        gparams, gx = self.net.vjp(params, cache, gy)
        return gx, gparams, None

    def params_half(self, params: Params, later: Later) -> Params:
        """Return the gradients of the params from the work deferred by ``back``."""
        return self._halves.params_half(params, later)  # type: ignore[union-attr]  # a schedule with W

    def gradients(self, gparams: Params, like: Params) -> Params:
        """Return gradients in the dtypes of the params outside."""
        return gparams if self.cut.dtype is None else with_dtypes_of(gparams, like)

    def update_stats(self, params: Params, cache: Cache) -> Params:
        """Return the stage's params, filled, with the statistics of a batch."""
        return self._stats_net.update_stats(params, cache if self.cut.dtype is None else (cache,))
