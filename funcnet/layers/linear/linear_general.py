"""LinearGeneral: a linear map of several axes into several axes.

x and w are treated as matrices: the axes of ``in_features`` are flattened to one, and the axes of ``out_features`` too.
"""

import math
from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet import initializers
from funcnet.checks import Misfit, check_gy, check_param, floating_complaint, require_params, several_sizes_complaint
from funcnet.contract import Grads, Layer, Params, Rng, Shape
from funcnet.errors import as_tuple, fields_error, flag, whole_numbers
from funcnet.initializers.elementary import Initializer
from funcnet.kernels import linear as kernels
from funcnet.random.keys import Key
from funcnet.value import frozen


@frozen
class LinearGeneral(Layer):
    """Affine map of several axes into several others.

        y  = x wᵀ + b
        gw = gyᵀ x    gb = Σ gy    gx = gy w          sums over all rows

    The axes ``axis`` of x are contracted; those of ``out_features`` come last in y. ``LinearGeneral(6, (2, 3))`` splits features
    into heads, ``LinearGeneral((2, 3), 6, axis=(-2, -1))`` merges them.

    Args:
        in_features: Sizes of the axes of x that are contracted; ``None`` to infer them with ``infer_sizes``.
        out_features: Sizes of the new last axes of y.
        axis: Axes of x that are contracted, one for each entry of ``in_features``.
        bias: Whether to add a learned offset.
        initializer: Initializer of ``weight``, by name or value.

    Shape:
        x (..., *in_features) → y (..., *out_features), for the last axes; ``axis`` may name others.

    Params:
        weight: (*out_features, *in_features), Xavier normal for the products of the sizes.
        bias: (*out_features), zeros; absent with ``bias=False``.

    Cache:
        ``x`` with the axes moved to the end and flattened: a copy only if they are elsewhere.

    Raises:
        ValueError: If ``axis`` has another number of entries than ``in_features``, or if the axes of x do not have these sizes.

    References:
        ``flax.nnx.LinearGeneral``, whose kernel is the transpose of this ``weight``.

    >>> layer = LinearGeneral(6, (2, 3))
    >>> layer(layer.init(0), torch.ones(5, 6)).shape
    torch.Size([5, 2, 3])
    """

    in_features: Shape | Any = field(converter=as_tuple, validator=whole_numbers(1, optional=True))
    out_features: Shape = field(converter=as_tuple, validator=whole_numbers(1))
    axis: Shape = field(default=(-1,), converter=as_tuple, validator=whole_numbers())
    bias: bool = field(default=True, validator=flag)
    initializer: str | Initializer = field(default="xavier_normal", validator=initializers.known)

    def __attrs_post_init__(self) -> None:
        if self.in_features is not None and len(self.axis) != len(self.in_features):
            raise fields_error(self, "axis must have an entry for each of in_features", "in_features", "axis")

    @property
    def inferred_sizes(self) -> dict[str, Shape]:
        return {"in_features": self.axis}

    def init(self, rng: Key | int) -> Params:
        sizes = math.prod(self.out_features), math.prod(self.in_features)
        shapes: dict[str, Shape] = {"weight": sizes, "bias": sizes[:1]} if self.bias else {"weight": sizes}
        flat = initializers.weight_and_bias(rng, shapes, self.initializer)
        return {name: leaf.reshape(self.param_shapes()[name]) for name, leaf in flat.items()}

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Any]:
        require_params(self, params)
        moved = x.movedim(self.axis, self._ends())
        batch = moved.shape[: -len(self.axis)]
        if moved.shape != (*batch, *self.in_features):
            raise Misfit
        flat, b = moved.flatten(len(batch)), params["bias"].flatten() if self.bias else None
        return kernels.linear(flat, self._matrix(params), b).reshape(*batch, *self.out_features), flat

    def vjp(self, params: Params, cache: Tensor, gy: Tensor) -> tuple[Grads, Tensor]:
        return self.grads(params, cache, gy), self.input_grad(params, cache, gy)

    def grads(self, params: Params, cache: Tensor, gy: Tensor) -> Grads:
        gw, gb = kernels.linear_grads(cache, self._flat(gy, cache))
        found = {"weight": gw, "bias": gb}
        return {name: found[name].reshape(shape) for name, shape in self.param_shapes().items()}

    def input_grad(self, params: Params, cache: Tensor, gy: Tensor) -> Tensor:
        check_param(self, params, "weight", (*self.out_features, *self.in_features), cache)
        flat = torch.matmul(self._flat(gy, cache), self._matrix(params))
        return flat.reshape(*flat.shape[:-1], *self.in_features).movedim(self._ends(), self.axis)

    def _flat(self, gy: Tensor, x: Tensor) -> Tensor:
        return check_gy(self, gy, (*x.shape[:-1], *self.out_features), x).flatten(-len(self.out_features))

    def _ends(self) -> Shape:
        return tuple(range(-len(self.axis), 0))

    def _matrix(self, params: Params) -> Tensor:
        w: Tensor = params["weight"].reshape(math.prod(self.out_features), math.prod(self.in_features))
        return w

    def param_shapes(self) -> dict[str, Shape]:
        weight = (*self.out_features, *self.in_features)
        return {"weight": weight, "bias": self.out_features} if self.bias else {"weight": weight}

    def complaint(self, x: Tensor) -> str | None:
        return floating_complaint(x) or several_sizes_complaint(x, self.axis, "in_features", self.in_features)
