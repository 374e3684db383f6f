"""Triplet losses: an anchor a must be nearer to its positive example b than to its negative one c. D is a distance.

    TripletMargin               D(u, v) = ‖u - v + ε‖ₚ
    TripletMarginWithDistance   D is a layer on a pair

    ℓ = max(0, z)     z = margin + D(a, b) - min(D(a, c), D(b, c))        without swap, D(a, c) in place of the minimum
    ga = s (∂D(a, b)/∂a - k ∂D(a, c)/∂a)                                  s = [z ≥ 0], 1 where that holds, else 0
    gb = s (∂D(a, b)/∂b - (1 - k) ∂D(b, c)/∂b)                            k = 1 where D(a, c) is the smaller, else 0;
    gc = -s (k ∂D(a, c)/∂c + (1 - k) ∂D(b, c)/∂c)                         ½ where both are equal, 1 without swap

y is the triple (a, b, c) of (N, features) or (features,), and gy = (ga, gb, gc) times the gradient of ℓ. At the kink, z = 0, the
derivative for z > 0 is used, as in torch.nn.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

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
    """The loss max(0, margin + D(a, b) - min(D(a, c), D(b, c)))."""

    margin: float
    swap: bool

    @abstractmethod
    def distance(self) -> tuple[Layer, Params]:
        """Return the layer D and its params, which have no leaves."""

    def cache(self, y: Any, target: Any) -> Any:
        return self.measured(y, target, lambda layer, params, pair: layer.apply(params, pair))

    def measured(self, y: Any, target: Any, run: Callable[..., tuple[Any, Cache]]) -> Any:
        """Return the cache, with the distances and caches that ``run(layer, params, pair)`` returns."""
        a, b, c = require_alike(self, y, "(anchor, positive, negative)")
        require_no_target(self, target)
        pairs = ((a, b), (a, c), (b, c)) if self.swap else ((a, b), (a, c))
        layer, params = self.distance()
        with errors_at(self, "distance_function"):
            distances, caches = zip(*[run(layer, params, pair) for pair in pairs], strict=True)
        far = torch.minimum(*distances[1:]) if self.swap else distances[1]
        return distances, caches, self.margin - (far - distances[0])

    def location(self, name: str) -> str:
        """Return the note for an error in the distance."""
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
    """Return 1 where the first number is smaller, ½ where both are equal, else 0."""
    return (one < other).to(one.dtype) + 0.5 * (one == other)


@frozen
class TripletMargin(_Triplet):
    """Triplet loss with a p-norm as distance: ``torch.nn.TripletMarginLoss``.

        ℓ  = max(0, z)               z = margin + D(a, b) - D(a, c),  D(u, v) = ‖u - v + ε‖ₚ
        gy = (ga, gb, gc) = g c [z ≥ 0] (∂D(a, b)/∂a - ∂D(a, c)/∂a, ∂D(a, b)/∂b, -∂D(a, c)/∂c)

    y is the triple (a, b, c) of anchor, positive and negative example. With ``swap``, min(D(a, c), D(b, c)) replaces D(a, c), and
    the gradient goes to the smaller one. If u - v + ε is 0, the distance and its gradient are 0 for every ``p``.

    Args:
        margin: How much farther away than the positive example the negative one must be to cost nothing.
        p: The degree of the norm.
        eps: ε, added to each difference, as in ``PairwiseDistance``.
        swap: Whether to use the distance from the positive to the negative example if that is smaller.
        reduction: ``"mean"`` over triplets, ``"sum"``, ``"none"`` for one value per triplet, or ``"batch"`` for the sum divided
            by N.

    Shape:
        y a triple of (N, features) or (features,), target ``None`` → (), or (N,) or () with ``reduction="none"``; unlike in
        torch.nn, nothing is broadcast

    Cache:
        The distances, the caches of their layer, and z, in float32 or wider.

    Raises:
        ValueError: If ``margin`` is not above 0, if y is not a triple of floating tensors of the same shape, dtype and device, or
            if there is a target.

    References:
        Balntas et al. 2016; ``torch.nn.TripletMarginLoss``.

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

    if TYPE_CHECKING:  # a type checker would put inherited fields first

        def __init__(
            self, margin: float = 1.0, p: float = 2.0, eps: float = 1e-6, swap: bool = False, reduction: str = "mean"
        ) -> None: ...

    def distance(self) -> tuple[Layer, Params]:
        return self.measure, {}


def _norm(p: Any, eps: Any) -> Layer | None:
    """Return the layer, made in advance since compiled code cannot; ``None`` for invalid fields: the validators raise later."""
    try:
        return PairwiseDistance(p, eps)
    except ValueError:
        return None


def _no_params(layer: Layer) -> Params:
    """Return empty params in the structure of a layer without params; ``init`` would also compute keys."""
    if isinstance(layer, Wrapper):
        return _no_params(layer.layer)
    return layer.pack([_no_params(child) for child in layer]) if isinstance(layer, Combinator) else {}


def _deterministic(value: Any, attribute: Any, got: Any) -> None:
    """Validate a field that must be a layer without randomness. A layer with params raises later, at its first call."""
    if not isinstance(got, Layer):
        raise value_error(type(value).__name__, f"{attribute.name} must be a layer on a pair", got)
    if got.stochastic:
        raise value_error(type(value).__name__, f"{attribute.name} must not need a key", got)


@frozen
class TripletMarginWithDistance(_Triplet):
    """Triplet loss with a layer as distance, whose ``vjp`` gives the gradients: ``torch.nn.TripletMarginWithDistanceLoss``.

        ℓ  = max(0, z)               z = margin + D(a, b) - D(a, c)
        gy = (ga, gb, gc) = g c [z ≥ 0] (∂D(a, b)/∂a - ∂D(a, c)/∂a, ∂D(a, b)/∂b, -∂D(a, c)/∂c)

    y is the triple (a, b, c) of anchor, positive and negative example. With ``swap``, min(D(a, c), D(b, c)) replaces D(a, c), and
    the gradient goes to the smaller one. Only differences of distances matter: minus the cosine works like 1 minus the cosine.

    Args:
        distance_function: D, a layer without params that maps a pair of (N, ...) to distances (N,), like ``PairwiseDistance()``,
            the default, or ``serial(CosineSimilarity(), Rescale(-1.0))``.
        margin: How much farther away than the positive example the negative one must be to cost nothing.
        swap: Whether to use the distance from the positive to the negative example if that is smaller.
        reduction: ``"mean"`` over triplets, ``"sum"``, ``"none"`` for one value per triplet, or ``"batch"`` for the sum divided
            by N.

    Shape:
        y a triple of (N, ...), target ``None`` → (), or (N,) with ``reduction="none"``

    Cache:
        The distances, the caches of their layer, and z, in float32 or wider.

    Raises:
        ValueError: If ``distance_function`` is not a layer, needs a key or has params, if ``margin`` is not above 0, if y is not
            a triple of floating tensors of the same shape, dtype and device, or if there is a target.

    References:
        Balntas et al. 2016; ``torch.nn.TripletMarginWithDistanceLoss``.

    >>> from funcnet import CosineSimilarity, Rescale, serial
    >>> x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    >>> TripletMarginWithDistance(serial(CosineSimilarity(), Rescale(-1.0)))((x, x, y), None)
    tensor(0.)
    """

    distance_function: Layer = field(factory=PairwiseDistance, validator=_deterministic)
    margin: float = field(default=1.0, validator=number(above=0))
    swap: bool = field(default=False, validator=flag)
    reduction: str = field(default="mean", validator=reductions)

    if TYPE_CHECKING:  # a type checker would put inherited fields first

        def __init__(
            self, distance_function: Layer = ..., margin: float = 1.0, swap: bool = False, reduction: str = "mean"
        ) -> None: ...

    def distance(self) -> tuple[Layer, Params]:
        return self.distance_function, _no_params(self.distance_function)

    def as_layer(self) -> LossLayer:
        return DistanceLossLayer(self)


@frozen
class DistanceLossLayer(LossLayer, Combinator):
    """The layer made from a ``TripletMarginWithDistance``; ``walk`` and ``map_layers`` visit its distance.

    Params:
        distance_function: The params of the distance, without leaves.

    Cache:
        The cache of the loss, the target, and the value.
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
        return self.loss.value_of(y, kept)[0]

    def update_stats(self, params: Params, cache: Cache) -> Params:
        return params

    def infer(self, x: Any) -> tuple[Layer, Tensor]:
        return self, output(self, x)
