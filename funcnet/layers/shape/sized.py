"""Reshaping, expansion and padding to sizes that depend on the shapes of the inputs.

x is a tensor (...) of any shape, or a tuple of tensors, of which the first is reshaped. The others provide shapes or indices, and
have the gradient ``None``.
"""

import math
from abc import abstractmethod
from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet.checks import Misfit, check_gy, kind_of, require_dense, require_no_params
from funcnet.contract import Grads, Layer, Params, Rng, Shape
from funcnet.errors import MOST, number, valid_if
from funcnet.kernels.operands import unbroadcast
from funcnet.layers.shape.templates import (
    InputShape,
    InputSize,
    SizeArithmetic,
    evaluate,
    inputs_of,
    is_size,
    keeps_batch,
    number_or_size,
    sizes,
)
from funcnet.value import frozen


@frozen
class Sized(Layer):
    """Base of layers with sizes of x in their fields: a subclass defines ``forward`` and ``backward``."""

    @abstractmethod
    def forward(self, x: Tensor, arguments: Any) -> Tensor:
        """Return y; ``arguments`` is the template with its expressions evaluated."""

    @abstractmethod
    def backward(self, gy: Tensor, shape: Shape, arguments: Any) -> Tensor:
        """Return gx, with the given shape."""

    @property
    @abstractmethod
    def template(self) -> Any:
        """The fields that are evaluated in each call."""

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Tensor, Any]:
        require_no_params(self, params)
        inputs = inputs_of(x)
        if not inputs or not all([isinstance(one, Tensor) for one in inputs]):  # noqa: C419
            raise Misfit
        for one in inputs:
            require_dense(self, one)
        arguments = evaluate(self.template, inputs)
        y = self.forward(inputs[0], arguments)
        return y, (tuple(inputs[0].shape), tuple(y.shape), kind_of(y), arguments, len(x) if isinstance(x, tuple) else 0)

    def vjp(self, params: Params, cache: Any, gy: Tensor) -> tuple[Grads, Any]:
        shape, of, kind, arguments, count = cache
        gx = self.backward(check_gy(self, gy, of, kind), shape, arguments) if kind.is_floating_point() else None
        return params, (gx, *[None] * (count - 1)) if count else gx

    def complaint(self, x: Any) -> str | None:
        inputs = inputs_of(x)
        if not inputs or not all(isinstance(one, Tensor) for one in inputs):
            return "x must be a tensor, or a tuple of tensors"
        try:
            arguments = evaluate(self.template, inputs)
        except (Misfit, IndexError):
            return "x must have the inputs and axes that the sizes refer to"
        except ZeroDivisionError:
            return "sizes of x used as divisors must not be 0"
        return self.rule(arguments)

    @abstractmethod
    def rule(self, arguments: Any) -> str:
        """Return the rule for x in words."""


@frozen
class View(Sized):
    """Reshape x to ``sizes``, including the batch axis; x can have any strides.

        y  = x with the axes of ``sizes``
        gx = gy with the axes of x

    Args:
        sizes: The sizes of y: numbers, of which one can be -1, and expressions of the shapes of x, like ``InputSize(0, 0)`` for
            the batch.

    Shape:
        x (...), or a tuple (x, others ...) → y (*sizes)

    Cache:
        The shapes of ``x`` and ``y``, and an empty tensor of their dtype.

    Raises:
        ValueError: If the elements of x do not fill the shape.

    References:
        ``torch.Tensor.view``.

    >>> View((InputSize(0, 0), 2, -1))({}, torch.ones(5, 6)).shape
    torch.Size([5, 2, 3])
    """

    sizes: tuple[int | InputSize | InputShape | SizeArithmetic, ...] = field(validator=sizes)

    @property
    def batch_dependent(self) -> bool:
        return not self.sizes or not keeps_batch(self.sizes[0])

    @property
    def template(self) -> Any:
        return self.sizes

    def forward(self, x: Tensor, arguments: Any) -> Tensor:
        return x.reshape(_infer_empty(arguments, x.shape) if 0 in arguments and -1 in arguments else arguments)

    def backward(self, gy: Tensor, shape: Shape, arguments: Any) -> Tensor:
        return gy.reshape(shape)

    def rule(self, arguments: Any) -> str:
        return f"the elements of x must fill the shape {arguments}"


def _infer_empty(sizes: Shape, shape: Shape) -> Shape:
    """Return the sizes for an empty x, with -1 inferred as if empty axes had size 1: torch cannot infer it."""
    filled = math.prod([n for n in shape if n]) // math.prod([n for n in sizes if n > 0])
    return tuple([filled if n == -1 else n for n in sizes])


@frozen
class Expand(Sized):
    """Repeat x along its axes of size 1, and along new leading axes, to the shape ``sizes``.

        y  = x, repeated
        gx = Σ gy over the repetitions

    Args:
        sizes: The sizes of y: numbers, -1 to keep the size of x, and expressions of the shapes of x.

    Shape:
        x (...), or a tuple (x, others ...) → y (*sizes)

    Cache:
        The shapes of ``x`` and ``y``, and an empty tensor of their dtype.

    Raises:
        ValueError: If x does not expand to the shape.

    References:
        ``torch.Tensor.expand``.

    >>> Expand((2, -1))({}, torch.tensor([[1.0, 2.0]]))
    tensor([[1., 2.],
            [1., 2.]])
    """

    sizes: tuple[int | InputSize | InputShape | SizeArithmetic, ...] = field(validator=sizes)

    @property
    def batch_dependent(self) -> bool:
        return not self.sizes or not keeps_batch(self.sizes[0])

    @property
    def template(self) -> Any:
        return self.sizes

    def forward(self, x: Tensor, arguments: Any) -> Tensor:
        return x.expand(arguments)

    def backward(self, gy: Tensor, shape: Shape, arguments: Any) -> Tensor:
        return unbroadcast(gy, shape)

    def rule(self, arguments: Any) -> str:
        return f"x must expand to the shape {arguments}"


@frozen
class ConstantPad(Sized):
    """Pad x with ``value``; the padding can depend on the shapes of x.

        y[i]  = x[i - l], or ``value`` outside x
        gx[j] = gy[j + l]                                            along each axis, for l elements added before it

    Args:
        pad: Numbers of elements, or expressions of the shapes of x: before and after the last axis, then the second-to-last, and
            so on. Negative numbers remove elements.
        value: The number to pad with.

    Shape:
        x (...), or a tuple (x, others ...) → y (...), with longer axes

    Cache:
        The shapes of ``x`` and ``y``, and an empty tensor of their dtype.

    Raises:
        ValueError: If ``pad`` has an odd length, or x has too few axes.

    References:
        ``torch.nn.functional.pad`` in constant mode.

    >>> ConstantPad((0, SizeArithmetic("mod", InputSize(0, 1), 2)))({}, torch.ones(1, 3))
    tensor([[1., 1., 1., 0.]])
    """

    pad: tuple[int | InputSize | SizeArithmetic, ...] = field(
        validator=valid_if(
            lambda got: isinstance(got, tuple) and len(got) % 2 == 0 and all(is_size(n, -(2**31)) for n in got),
            "a tuple of an even count of whole numbers or sizes",
            most=MOST,
        )
    )
    value: float = field(default=0.0, validator=number())

    @property
    def batch_dependent(self) -> bool:
        return False

    @property
    def template(self) -> Any:
        return self.pad

    def forward(self, x: Tensor, arguments: Any) -> Tensor:
        return torch.constant_pad_nd(x, arguments, self.value)

    def backward(self, gy: Tensor, shape: Shape, arguments: Any) -> Tensor:
        return torch.constant_pad_nd(gy, [-n for n in arguments], 0.0)

    def rule(self, arguments: Any) -> str:
        return f"x must have {len(arguments) // 2} axes or more"


@frozen
class RescaleBySize(Sized):
    """Scale and shift x by numbers that can depend on the shapes of x; ``Rescale`` takes plain numbers.

        y  = scale x + offset
        gx = scale gy

    Args:
        scale: The factor.
        offset: The number to add.

    Shape:
        x (...), or a tuple (x, others ...) → y (...)

    Cache:
        The shape of ``x``, and an empty tensor of its dtype.

    Raises:
        ValueError: If x does not have the axes that the sizes refer to.

    >>> RescaleBySize(SizeArithmetic("truediv", 1, InputSize(0, -1)))({}, torch.ones(2, 4)).sum()
    tensor(2.)
    """

    scale: float | InputSize | SizeArithmetic = field(default=1.0, validator=number_or_size)
    offset: float | InputSize | SizeArithmetic = field(default=0.0, validator=number_or_size)

    @property
    def template(self) -> Any:
        return self.scale, self.offset

    def forward(self, x: Tensor, arguments: Any) -> Tensor:
        y: Tensor = x * arguments[0] + arguments[1]
        return y

    def backward(self, gy: Tensor, shape: Shape, arguments: Any) -> Tensor:
        gx: Tensor = gy * arguments[0]
        return gx

    def rule(self, arguments: Any) -> str:
        return "x must be a tensor of numbers"
