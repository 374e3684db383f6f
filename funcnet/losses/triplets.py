"""Triplet losses: an anchor a must be nearer to its positive example b than to its negative one c. D is a distance.

    TripletMargin               D(u, v) = ‖u - v + ε‖ₚ
    TripletMarginWithDistance   D is a layer on a pair

    ℓ = max(0, z)     z = margin + D(a, b) - min(D(a, c), D(b, c))        without swap D(a, c) in place of the minimum
    ga = s (∂D(a, b)/∂a - k ∂D(a, c)/∂a)                                  s = [z ≥ 0], 1 where that holds, else 0
    gb = s (∂D(a, b)/∂b - (1 - k) ∂D(b, c)/∂b)                            k = 1 where D(a, c) is the smaller, else 0
    gc = -s (k ∂D(a, c)/∂c + (1 - k) ∂D(b, c)/∂c)                         ½ where both are equal, and 1 without swap

y is the triple (a, b, c) of (N, features) or (features,), and gy = (ga, gb, gc), times the gradient of ℓ. At the kink, z = 0, the
slope is that of z > 0, as in torch.nn.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Self

import torch
from attrs import Factory, field
from torch import Tensor

from funcnet.combinator import Children, Combinator, errors_at
from funcnet.contract import Cache, Layer, Params, Rng, output
from funcnet.errors import flag, number, value_error
from funcnet.kernels.activation import positive_part
from funcnet.layers.operands.distances import PairwiseDistance, degree
from funcnet.losses.loss import Factor, LossLayer, reductions
from funcnet.losses.terms import TermLoss, require_alike, require_no_target
from funcnet.value import frozen
from funcnet.wrapper import Wrapper


@frozen
class _Triplet(TermLoss):
    """max(0, margin + D(a, b) - min(D(a, c), D(b, c)))."""

    margin: float
    swap: bool

    @abstractmethod
    def distance(self) -> tuple[Layer, Params]:
        """Return the layer D and its params, which have no leaves."""

    def cache(self, y: Any, target: Any) -> Any:
        return self.measured(y, target, lambda layer, params, pair: layer.apply(params, pair))

    def measured(self, y: Any, target: Any, run: Callable[..., tuple[Any, Cache]]) -> Any:
        """Return the cache, with distances and caches as ``run(layer, params, pair)`` returns them."""
        a, b, c = require_alike(self, y, "(anchor, positive, negative)")
        require_no_target(self, target)
        pairs = ((a, b), (a, c), (b, c)) if self.swap else ((a, b), (a, c))
        layer, params = self.distance()
        with errors_at(self, "distance_function"):
            distances, caches = zip(*[run(layer, params, pair) for pair in pairs], strict=True)
        far = torch.minimum(*distances[1:]) if self.swap else distances[1]
        return distances, caches, self.margin - (far - distances[0])

    def location(self, name: str) -> str:
        """Say where an error happened."""
        return f"{type(self).__name__}, {name}"

    def loss(self, kept: Any) -> Tensor:
        return positive_part(kept[2])

    def dloss_dy(self, kept: Any, g: Factor) -> Any:
        distances, caches, z = kept
        s = (z >= 0).to(z.dtype) * g
        k = _share(*distances[1:]) if self.swap else 1.0
        layer, params = self.distance()
        gs = (s, -s * k, -s * (1 - k))
        with errors_at(self, "distance_function"):
            gradients = [layer.input_grad(params, cache, g) for cache, g in zip(caches, gs[: len(caches)], strict=True)]
        (ga, gb), (ga_far, gc), *rest = gradients
        if not rest:
            return ga + ga_far, gb, gc
        gb_far, gc_far = rest[0]
        return ga + ga_far, gb + gb_far, gc + gc_far


def _share(one: Tensor, other: Tensor) -> Tensor:
    """Return 1 where the first number is the smaller, ½ where both are equal, else 0."""
    return (one < other).to(one.dtype) + 0.5 * (one == other)


@frozen
class TripletMargin(_Triplet):
    """Triplet loss with the p-norm as distance: ``torch.nn.TripletMarginLoss``.

    Where two examples are equal up to ``eps``, the distance is 0 and so is its slope, for every ``p``.

    Args:
        margin: By how much the negative example must be farther away than the positive one to cost nothing.
        p: The degree of the norm.
        eps: Added to each difference, as in ``PairwiseDistance``.
        swap: Whether to take the distance from the positive to the negative example where that is the smaller one.
        reduction: ``"mean"``, ``"sum"``, ``"none"`` or ``"batch"``; a term is a triplet.

    Shape:
        y a triple of (N, features) or (features,), of one shape: unlike torch.nn's, none is broadcast; target ``None``.

    Cache:
        The distances, their layers' caches, and z, in float32 at least.

    Raises:
        ValueError: For an unknown ``reduction``, a ``margin`` that is not above 0, a ``p`` or ``eps`` that is not a number, a y
            that is not a triple of floating tensors of one shape, dtype and device, and a target.

    Source:
        Balntas et al. 2016; ``torch.nn.TripletMarginLoss``'s formula.

    >>> near, far = torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]])
    >>> TripletMargin(margin=6.0, eps=0.0)((near, near, far), None)
    tensor(1.)
    """

    margin: float = field(default=1.0, validator=number(above=0))
    p: float = field(default=2.0, validator=degree)
    eps: float = field(default=1e-6, validator=number())
    swap: bool = field(default=False, validator=flag)
    reduction: str = field(default="mean", validator=reductions)

    measure: Any = field(init=False, eq=False, default=Factory(lambda value: _norm(value.p, value.eps), takes_self=True))

    def distance(self) -> tuple[Layer, Params]:
        return self.measure, {}


def _norm(p: Any, eps: Any) -> Layer | None:
    """Make the layer once, since compiled code makes no values; of wrong fields the validators complain afterwards."""
    try:
        return PairwiseDistance(p, eps)
    except ValueError:
        return None


def _no_params(layer: Layer) -> Params:
    """Return the params of layers that have none, in their structure: without keys, which ``init`` would make."""
    if isinstance(layer, Wrapper):
        return _no_params(layer.layer)
    return layer.pack([_no_params(child) for child in layer]) if isinstance(layer, Combinator) else {}


def _deterministic(value: Any, attribute: Any, got: Any) -> None:
    """Validate a field that must be a layer that needs no key; one with params raises when it first gets none."""
    if not isinstance(got, Layer):
        raise value_error(type(value).__name__, f"{attribute.name} must be a layer on a pair", got)
    if got.stochastic:
        raise value_error(type(value).__name__, f"{attribute.name} must need no key", got)


@frozen
class TripletMarginWithDistance(_Triplet):
    """Triplet loss with a layer as distance, whose ``vjp`` gives the gradients: ``torch.nn.TripletMarginWithDistanceLoss``.

    Only differences of distances count, so that minus the cosine serves for 1 minus the cosine.

    Args:
        distance_function: A layer without params that makes a pair of (N, ...) into distances (N,), such as
            ``PairwiseDistance()``, the default, or ``serial(CosineSimilarity(), Rescale(-1.0))``.
        margin: By how much the negative example must be farther away than the positive one to cost nothing.
        swap: Whether to take the distance from the positive to the negative example where that is the smaller one.
        reduction: ``"mean"``, ``"sum"``, ``"none"`` or ``"batch"``; a term is a distance.

    Shape:
        y a triple of (N, ...), of one shape; target ``None``.

    Cache:
        The distances, their layers' caches, and z, in float32 at least.

    Raises:
        ValueError: For a ``distance_function`` that is not a layer or needs a key, and what it raises, as for params that are
            missing; and as ``TripletMargin``.

    Source:
        Balntas et al. 2016; ``torch.nn.TripletMarginWithDistanceLoss``'s formula.

    >>> from funcnet import CosineSimilarity, Rescale, serial
    >>> x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    >>> TripletMarginWithDistance(serial(CosineSimilarity(), Rescale(-1.0)))((x, x, y), None)
    tensor(0.)
    """

    distance_function: Layer = field(factory=PairwiseDistance, validator=_deterministic)
    margin: float = field(default=1.0, validator=number(above=0))
    swap: bool = field(default=False, validator=flag)
    reduction: str = field(default="mean", validator=reductions)

    def distance(self) -> tuple[Layer, Params]:
        return self.distance_function, _no_params(self.distance_function)

    def as_layer(self) -> LossLayer:
        return DistanceLossLayer(self)


@frozen
class DistanceLossLayer(LossLayer, Combinator):
    """The layer of a loss with a layer as distance, which ``walk`` and ``map_layers`` reach.

    Params   those of the distance, which have no leaves, under ``distance_function``.
    Cache    the loss's own, ``target``, and the value.
    Raises   ``ValueError`` when the input is not a pair, and what the loss raises.
    """

    label = "TripletMarginWithDistance"

    loss: TripletMarginWithDistance

    def children(self) -> Children:
        return {"distance_function": self.loss.distance_function}

    def with_children(self, children: Children) -> Self:
        return self.replace(loss=self.loss.replace(distance_function=children["distance_function"]))

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Tensor, Cache]:
        self.entries(params)
        return super().apply({}, x)

    def __call__(self, params: Params, x: Any, rng: Rng = None) -> Tensor:
        self.entries(params)
        y, target = self.pair(x)
        kept = self.loss.measured(y, target, lambda layer, params, pair: (layer(params, pair), None))
        return self.loss.valued(y, kept)[0]

    def update_stats(self, params: Params, cache: Cache) -> Params:
        return params

    def infer(self, x: Any) -> tuple[Layer, Tensor]:
        return self, output(self, x)
