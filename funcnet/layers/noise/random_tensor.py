"""RandomTensor: random numbers with a shape that is computed from x.

x is a tensor (...), or a tuple of tensors of any shapes.
"""

from typing import Any

import torch
from attrs import field, validators
from torch import Tensor

from funcnet import random
from funcnet.checks import Misfit, kind_of, require_key, require_no_params
from funcnet.contract import Grads, Layer, Params, Rng
from funcnet.errors import number, one_of, valid_if
from funcnet.layers.shape.templates import InputOnes, InputShape, InputSize, SizeArithmetic, evaluate, inputs_of, sizes
from funcnet.value import frozen

_floating_dtype = valid_if(lambda got: isinstance(got, torch.dtype) and got.is_floating_point, "a floating dtype, or None")


@frozen
class RandomTensor(Layer):
    """Independent random numbers, by default with the shape of x.

        y  = numbers of the distribution, independent of x
        gx = 0, or ``None`` for a tuple or an integer x

    The numbers are a pure function of the key. ``inference()`` returns the layer itself, which is still random.

    Args:
        distribution: ``"normal"`` for mean 0 and variance 1, ``"uniform"`` for [0, 1), or ``"bernoulli"`` for 0 and 1.
        sizes: Sizes of y: numbers, and expressions that depend on the shapes of x; by default the shape of x.
        p: Probability of 1, for ``"bernoulli"``.
        dtype: Floating dtype of y; ``None`` for that of x, which must then be floating.

    Shape:
        x (...), or a tuple whose first tensor gives the dtype → y (*sizes)

    Cache:
        The shape of ``x``, and an empty tensor of its dtype and device; the length of a tuple.

    Raises:
        ValueError: If x lacks the axes from which ``sizes`` are computed.

    References:
        ``torch.randn_like``, ``torch.rand_like`` and ``torch.Tensor.bernoulli_``.

    >>> RandomTensor("uniform", (InputSize(0, 0), 3))({}, torch.zeros(2, 5), 0).shape
    torch.Size([2, 3])
    """

    distribution: str = field(default="normal", validator=one_of("normal", "uniform", "bernoulli"))
    sizes: tuple[int | InputSize | InputShape | InputOnes | SizeArithmetic, ...] = field(default=(InputShape(),), validator=sizes)
    p: float = field(default=0.5, validator=number(0.0, at_most=1.0))
    dtype: torch.dtype | None = field(default=None, validator=validators.optional(_floating_dtype))

    stochastic = True
    batch_dependent = True

    @property
    def output_dtype(self) -> torch.dtype | None:
        return self.dtype

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Tensor, Any]:
        require_no_params(self, params)
        rng = require_key(self, rng)
        if self.complaint(x):
            raise Misfit
        inputs = inputs_of(x)
        y = self._draw(rng, evaluate(self.sizes, inputs), self.dtype or inputs[0].dtype)
        return y.to(inputs[0].device), len(x) if isinstance(x, tuple) else (tuple(x.shape), kind_of(x))

    def _draw(self, rng: Any, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        if self.distribution == "bernoulli":
            return random.bernoulli(rng, shape, self.p).to(dtype)
        draw = random.normal if self.distribution == "normal" else random.uniform
        return draw(rng, shape, dtype=dtype)

    def vjp(self, params: Params, cache: Any, gy: Any) -> tuple[Grads, Any]:
        if isinstance(cache, int):
            return params, (None,) * cache
        shape, kind = cache
        return params, kind.new_zeros(shape) if kind.is_floating_point() else None

    def complaint(self, x: Any) -> str | None:
        inputs = inputs_of(x)
        if not inputs or not all([isinstance(one, Tensor) for one in inputs]):  # noqa: C419
            return "x must be a tensor, or a tuple of tensors"
        if self.dtype is None and not inputs[0].is_floating_point():
            return "x must be a floating tensor if dtype=None"
        try:
            shape = evaluate(self.sizes, inputs)
        except (Misfit, IndexError):
            return "x must have the inputs and axes from which the sizes are computed"
        return None if all([n >= 0 for n in shape]) else f"the sizes must be at least 0, not {shape}"  # noqa: C419
