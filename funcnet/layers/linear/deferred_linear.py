"""DeferredLinear: the operands of a linear map, for a loss that multiplies them.

x (..., in_features), w (out_features, in_features), b (out_features,).
"""

from typing import Any

from attrs import field
from torch import Tensor

from funcnet import initializers
from funcnet.checks import Misfit, check_gys, require_kind
from funcnet.contract import Grads, Layer, Params, Rng, Shape, Size
from funcnet.errors import flag, size, size_or_none
from funcnet.initializers.elementary import Initializer
from funcnet.random.keys import Key
from funcnet.value import frozen


@frozen
class DeferredLinear(Layer):
    """A ``Linear`` that returns its operands instead of multiplying them.

        y  = (x, w, b)                      or (x, w) with bias=False
        gx = gy₁    gw = gy₂    gb = gy₃

    It is the last layer of a net trained with ``LinearCrossEntropy``, which never holds all logits in memory. To predict, replace
    it with ``Linear``, which has the same params. ``tied`` shares its weight with an ``Embedding``.

    Args:
        in_features: Size of the last axis of x; ``None`` to infer it with ``infer_sizes``.
        out_features: Number of classes, the rows of the weight.
        bias: Whether each class has a learned offset.
        initializer: Initializer of ``weight``, as in ``Linear``.

    Shape:
        x (..., in_features) → y, a tuple of x, (out_features, in_features) and, with ``bias``, (out_features,).

    Params:
        weight: (out_features, in_features), Xavier normal.
        bias: (out_features,), zeros; absent with ``bias=False``.

    Cache:
        y, not copied.

    >>> from funcnet.combinators.sequential import serial
    >>> from funcnet.layers.linear.linear import Linear
    >>> from funcnet.walking import replace
    >>> import torch
    >>> net = serial(Linear(3, 4), DeferredLinear(4, 100))
    >>> params, x = net.init(0), torch.ones(2, 3)
    >>> [tuple(one.shape) for one in net(params, x)]
    [(2, 4), (100, 4), (100,)]
    >>> replace(net, "1", Linear(4, 100))(params, x).shape
    torch.Size([2, 100])
    """

    in_features: Size = field(validator=size_or_none)
    out_features: int = field(validator=size)
    bias: bool = field(default=True, validator=flag)
    initializer: str | Initializer = field(default="xavier_normal", validator=initializers.known)

    @property
    def inferred_sizes(self) -> dict[str, int]:
        return {"in_features": -1}

    def init(self, rng: Key | int) -> Params:
        return initializers.weight_and_bias(rng, self.param_shapes(), self.initializer)

    def apply(self, params: Any, x: Tensor, rng: Rng = None) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        if self.complaint(x) or params.keys() != self.param_shapes().keys():
            raise Misfit
        y = (x, *[self._checked(params, name) for name in self.param_shapes()])
        require_kind(self, params, x)
        return y, y

    def _checked(self, params: Params, name: str) -> Tensor:
        leaf: Tensor = params[name]
        if leaf.shape != self.param_shapes()[name]:
            raise Misfit
        return leaf

    def vjp(self, params: Params, cache: tuple[Tensor, ...], gy: Any) -> tuple[Grads, Tensor]:
        gx, *gparams = check_gys(self, gy, cache)
        return dict(zip(self.param_shapes(), gparams, strict=True)), gx

    def param_shapes(self) -> dict[str, Shape]:
        shapes: dict[str, Shape] = {"weight": (self.out_features, self.in_features)}
        return shapes | ({"bias": (self.out_features,)} if self.bias else {})
