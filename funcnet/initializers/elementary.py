"""Elementary initializers, which draw tensors of any shape (...)."""

import functools
from abc import ABC, abstractmethod
from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet import random
from funcnet.errors import add_location, describe, explains, number, value_error
from funcnet.random.keys import Key
from funcnet.value import Value, frozen

Shape = tuple[int, ...]
Fans = tuple[int, int]
"""The number of inputs of each output, and of outputs of each input: (fan_in, fan_out)."""


class Initializer(Value, ABC):
    """A frozen value that draws a tensor from a key and a shape; subclass it with ``@funcnet.frozen``."""

    __slots__ = ()

    @abstractmethod
    def __call__(self, rng: Key | int, shape: Shape, dtype: torch.dtype | None = None) -> Tensor:
        """Draw a tensor of this shape, in ``dtype``, by default torch's default dtype."""

    def for_fans(self, rng: Key | int, shape: Shape, fans: Fans, dtype: torch.dtype | None = None) -> Tensor:
        """Draw the weight of a layer whose fans do not follow from the shape.

        By default the fans are ignored.

        Args:
            rng: A key or an int seed.
            shape: The shape of the weight.
            fans: The pair (fan_in, fan_out) of the layer.
            dtype: A floating dtype; by default torch's default dtype.

        Returns:
            A tensor of this shape.
        """
        return self(rng, shape, dtype)

    @classmethod
    def _when_frozen(cls) -> None:
        """Wrap ``__call__`` so that errors name the initializer, also for shapes and dtypes that only torch rejects."""
        if not hasattr(cls.__call__, "explains_errors"):
            cls.__call__ = _explain_errors(cls.__call__)  # type: ignore[method-assign]


def _explain_errors(draw: Any) -> Any:
    @functools.wraps(draw)
    def explaining(self: Any, rng: Key | int, shape: Shape, dtype: torch.dtype | None = None) -> Tensor:
        try:
            _require_dtype(dtype)
            return draw(self, rng, shape, dtype)  # type: ignore[no-any-return]
        except Exception as error:
            raise _explain(self, shape, dtype, error) from None

    explaining.explains_errors = True  # type: ignore[attr-defined]
    return explaining


def _require_dtype(dtype: Any) -> None:
    """Raise ``TypeError`` for anything but a dtype: torch would read some strings as devices, with a misleading error."""
    if dtype is not None and not isinstance(dtype, torch.dtype):
        raise TypeError


def _explain(who: Any, shape: Any, dtype: Any, error: Exception) -> Exception:
    """Return an error that names the initializer: ours with its location added, ours for torch's, or a user's unchanged."""
    if explains(error):
        add_location(error, repr(who))
    elif isinstance(error, (TypeError, OverflowError)) and type(who).__module__.startswith("funcnet."):
        rule = "shape must be a tuple of whole numbers of at least 0, and dtype a floating dtype"
        return value_error(who, rule, f"{describe(shape)} and {describe(dtype)}")
    return error


def _validate_high(value: Any, attribute: Any, got: Any) -> None:
    number(value.low)(value, attribute, got)


@frozen
class Constant(Initializer):
    """Fill a tensor with one number.

        x = ``value`` everywhere

    Args:
        value: The number.

    Shape:
        (...), any shape

    References:
        ``torch.nn.init.constant_``.

    >>> Constant(2.0)(0, (3,))
    tensor([2., 2., 2.])
    """

    value: float = field(validator=number())

    def __call__(self, rng: Key | int, shape: Shape, dtype: torch.dtype | None = None) -> Tensor:
        return torch.full(
            shape, self.value, dtype=torch.get_default_dtype() if dtype is None else dtype, device=random.as_key(rng).device
        )


def Zeros() -> Constant:  # noqa: N802 (it makes a value)
    """Fill a tensor with zeros.

        x = 0 everywhere

    Returns:
        ``Constant(0.0)``, for any shape (...).

    References:
        ``torch.nn.init.zeros_``.

    >>> Zeros()(0, (2,))
    tensor([0., 0.])
    """
    return Constant(0.0)


def Ones() -> Constant:  # noqa: N802 (it makes a value)
    """Fill a tensor with ones.

        x = 1 everywhere

    Returns:
        ``Constant(1.0)``, for any shape (...).

    References:
        ``torch.nn.init.ones_``.

    >>> Ones()(0, (2,))
    tensor([1., 1.])
    """
    return Constant(1.0)


@frozen
class Uniform(Initializer):
    """Draw from a uniform distribution.

        x ~ U[low, high),  that is low ≤ x < high

    Args:
        low: The lower bound, included.
        high: The upper bound, not included.

    Shape:
        (...), any shape

    Raises:
        ValueError: If ``high`` is below ``low``.

    References:
        ``torch.nn.init.uniform_``.
    """

    low: float = field(default=0.0, validator=number())
    high: float = field(default=1.0, validator=_validate_high)

    def __call__(self, rng: Key | int, shape: Shape, dtype: torch.dtype | None = None) -> Tensor:
        return random.uniform(rng, shape, self.low, self.high, dtype)


@frozen
class Normal(Initializer):
    """Draw from a normal distribution.

        x ~ N(mean, std²)

    Args:
        mean: The mean.
        std: The standard deviation, at least 0.

    Shape:
        (...), any shape

    References:
        ``torch.nn.init.normal_``.
    """

    mean: float = field(default=0.0, validator=number())
    std: float = field(default=1.0, validator=number(0.0))

    def __call__(self, rng: Key | int, shape: Shape, dtype: torch.dtype | None = None) -> Tensor:
        return random.normal(rng, shape, self.mean, self.std, dtype)


@frozen
class TruncatedNormal(Initializer):
    """Draw from a normal distribution truncated to the interval from ``low`` to ``high``.

        x ~ N(mean, std²) given low ≤ x ≤ high

    Args:
        mean: The mean before truncation.
        std: The standard deviation before truncation, above 0.
        low: The lower bound, a value and not a number of standard deviations, as in torch.
        high: The upper bound, also a value.

    Shape:
        (...), any shape

    Raises:
        ValueError: If ``high`` is below ``low``.

    References:
        ``torch.nn.init.trunc_normal_``.
    """

    mean: float = field(default=0.0, validator=number())
    std: float = field(default=1.0, validator=number(above=0.0))
    low: float = field(default=-2.0, validator=number())
    high: float = field(default=2.0, validator=_validate_high)

    def __call__(self, rng: Key | int, shape: Shape, dtype: torch.dtype | None = None) -> Tensor:
        return random.truncated_normal(rng, shape, self.mean, self.std, self.low, self.high, dtype)
