"""Scale and Bias: a learned factor or offset for each element of the last axes.

x (..., *shape); w and b have ``shape``, and broadcast against the last axes of x.
"""

from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet import initializers
from funcnet.checks import Misfit, check_gy, check_param, floating_complaint, kind_of
from funcnet.contract import Grads, Layer, Params, Rng, Shape
from funcnet.errors import as_tuple, whole_numbers
from funcnet.initializers.elementary import Initializer
from funcnet.kernels import operands as arithmetic
from funcnet.random.keys import Key
from funcnet.value import frozen


@frozen
class _ElementwiseAffine(Layer):
    """Base of layers with one parameter, which broadcasts against the last axes of x."""

    shape: Shape | Any = field(converter=as_tuple, validator=whole_numbers(1, optional=True, empty=True))

    @property
    def inferred_sizes(self) -> dict[str, int]:
        return {"shape": -1}

    def complaint(self, x: Tensor) -> str | None:
        rule = f"the last axes of x must have the sizes shape={self.shape}, where 1 matches any size"
        return floating_complaint(x) or (None if self._broadcasts_to(x) else rule)

    def _broadcasts_to(self, x: Tensor) -> bool:
        """Return whether the last axes of x have the sizes in ``shape``, where 1 matches any size."""
        start = x.dim() - len(self.shape)
        return start >= 0 and [n for n, size in zip(self.shape, x.shape[start:], strict=True) if n not in (1, size)] == []

    def _checked(self, params: Params, x: Tensor, name: str) -> Tensor:
        """Return the parameter, checked: torch would broadcast x to the shape of a larger one."""
        w: Tensor = params[name]
        if len(params) != 1 or w.shape != self.shape or w.dtype is not x.dtype or not self._broadcasts_to(x):
            raise Misfit
        if x.layout is not torch.strided or w.layout is not torch.strided or w.is_cpu is not x.is_cpu:
            raise Misfit
        return w


@frozen
class Scale(_ElementwiseAffine):
    """Multiply each element of the last axes by a learned factor.

        y  = w ⊙ x
        gw = Σ gy ⊙ x    gx = w ⊙ gy          sum over the axes along which w broadcasts

    ``Scale(3)`` has a factor for each of 3 features, ``Scale((3, 1, 1))`` for each of 3 channels. Weight decay skips ``weight``
    by default.

    Args:
        shape: Shape of ``weight``, where 1 matches any size of x; ``None`` to infer the size of the last axis with
            ``infer_sizes``.
        initializer: Initializer of ``weight``, by name or value.

    Shape:
        x (..., *shape) → y (..., *shape)

    Params:
        weight: ``shape``, ones.

    Cache:
        ``x``, not copied.

    Raises:
        ValueError: If the last axes of x do not have the sizes in ``shape``.

    >>> layer = Scale((3, 1, 1))
    >>> layer(layer.init(0), torch.ones(2, 3, 4, 4)).shape
    torch.Size([2, 3, 4, 4])
    """

    undecayed = ("weight",)

    initializer: str | Initializer = field(default="ones", validator=initializers.known)

    def init(self, rng: Key | int) -> Params:
        return {"weight": initializers.initialize(rng, self.shape, self.initializer)}

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Tensor]:
        return x * self._checked(params, x, "weight"), x

    def vjp(self, params: Params, cache: Tensor, gy: Tensor) -> tuple[Grads, Tensor]:
        return self.grads(params, cache, gy), gy * check_param(self, params, "weight", self.shape, cache)

    def grads(self, params: Params, cache: Tensor, gy: Tensor) -> Grads:
        return {"weight": arithmetic.unbroadcast(check_gy(self, gy, cache.shape, cache) * cache, self.shape)}

    def input_grad(self, params: Params, cache: Tensor, gy: Tensor) -> Tensor:
        return check_gy(self, gy, cache.shape, cache) * check_param(self, params, "weight", self.shape, cache)

    def param_shapes(self) -> dict[str, Shape]:
        return {"weight": self.shape}


@frozen
class Bias(_ElementwiseAffine):
    """Add a learned offset to each element of the last axes.

        y  = x + b
        gb = Σ gy    gx = gy                  sum over the axes along which b broadcasts

    ``Bias(3)`` has an offset for each of 3 features, ``Bias((3, 1, 1))`` for each of 3 channels.

    Args:
        shape: Shape of ``bias``, where 1 matches any size of x; ``None`` to infer the size of the last axis with ``infer_sizes``.
        initializer: Initializer of ``bias``, by name or value.

    Shape:
        x (..., *shape) → y (..., *shape)

    Params:
        bias: ``shape``, zeros.

    Cache:
        The shape of ``x``, and an empty tensor of its dtype and device.

    Raises:
        ValueError: If the last axes of x do not have the sizes in ``shape``.

    >>> layer = Bias(3)
    >>> layer(layer.init(0), torch.ones(3))
    tensor([1., 1., 1.])
    """

    initializer: str | Initializer = field(default="zeros", validator=initializers.known)

    def init(self, rng: Key | int) -> Params:
        return {"bias": initializers.initialize(rng, self.shape, self.initializer)}

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[Shape, Tensor]]:
        return x + self._checked(params, x, "bias"), (tuple(x.shape), kind_of(x))

    def vjp(self, params: Params, cache: tuple[Shape, Tensor], gy: Tensor) -> tuple[Grads, Tensor]:
        gy = check_gy(self, gy, *cache)
        return {"bias": arithmetic.unbroadcast(gy, self.shape)}, gy

    def input_grad(self, params: Params, cache: tuple[Shape, Tensor], gy: Tensor) -> Tensor:
        return check_gy(self, gy, *cache)

    def param_shapes(self) -> dict[str, Shape]:
        return {"bias": self.shape}
