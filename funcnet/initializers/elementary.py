"""Elementary initializers: Constant, Zeros, Ones, Uniform, Normal and TruncatedNormal draw a tensor of any shape (...)."""

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
"""How many inputs an output has, and how many outputs an input has: (fan_in, fan_out)."""


class Initializer(Value, ABC):
    """A frozen value that draws a tensor from a key and a shape."""

    __slots__ = ()

    @abstractmethod
    def __call__(self, rng: Key | int, shape: Shape, dtype: torch.dtype | None = None) -> Tensor:
        """Draw a tensor of this shape; ``dtype`` is torch's default one where it is not given."""

    def for_fans(self, rng: Key | int, shape: Shape, fans: Fans, dtype: torch.dtype | None = None) -> Tensor:
        """Draw the weight of a layer with these ``fans``, which a shape does not tell; by default only the shape counts."""
        return self(rng, shape, dtype)

    @classmethod
    def _when_frozen(cls) -> None:
        """Let the draw of a class say whose it is, and what is wrong with a shape or dtype that only torch refuses."""
        if not hasattr(cls.__call__, "explains_errors"):
            cls.__call__ = _explaining(cls.__call__)  # type: ignore[method-assign]


def _explaining(draw: Any) -> Any:
    @functools.wraps(draw)
    def explaining(self: Any, rng: Key | int, shape: Shape, dtype: torch.dtype | None = None) -> Tensor:
        try:
            _require_dtype(dtype)
            return draw(self, rng, shape, dtype)  # type: ignore[no-any-return]
        except Exception as error:
            raise _explained(self, shape, dtype, error) from None

    explaining.explains_errors = True  # type: ignore[attr-defined]
    return explaining


def _require_dtype(dtype: Any) -> None:
    """Raise ``TypeError`` for anything but a dtype: torch reads some words as devices, and complains of those."""
    if dtype is not None and not isinstance(dtype, torch.dtype):
        raise TypeError


def _explained(who: Any, shape: Any, dtype: Any, error: Exception) -> Exception:
    """Return an error of ours with whose it is, or ours for one of torch; ``error`` itself for one of a user's code."""
    if explains(error):
        add_location(error, repr(who))
    elif isinstance(error, (TypeError, OverflowError)) and type(who).__module__.startswith("funcnet."):
        rule = "shape must be a tuple of whole numbers of at least 0, and dtype a floating one"
        return value_error(who, rule, f"{describe(shape)} and {describe(dtype)}")
    return error


def _high(value: Any, attribute: Any, got: Any) -> None:
    number(value.low)(value, attribute, got)


@frozen
class Constant(Initializer):
    """Every element x = ``value``.

    Raises   ``ValueError`` for a value that is not a finite number.
    Source   elementary.
    """

    value: float = field(validator=number())

    def __call__(self, rng: Key | int, shape: Shape, dtype: torch.dtype | None = None) -> Tensor:
        return torch.full(
            shape, self.value, dtype=torch.get_default_dtype() if dtype is None else dtype, device=random.as_key(rng).device
        )


def Zeros() -> Constant:  # noqa: N802 (it makes a value)
    """Every element x = 0: the ``Constant`` of that value."""
    return Constant(0.0)


def Ones() -> Constant:  # noqa: N802 (it makes a value)
    """Every element x = 1: the ``Constant`` of that value."""
    return Constant(1.0)


@frozen
class Uniform(Initializer):
    """Evenly from low ≤ x < high.

    Raises   ``ValueError`` for bounds that are not finite or out of order.
    Source   elementary; ``torch.nn.init.uniform_``.
    """

    low: float = field(default=0.0, validator=number())
    high: float = field(default=1.0, validator=_high)

    def __call__(self, rng: Key | int, shape: Shape, dtype: torch.dtype | None = None) -> Tensor:
        return random.uniform(rng, shape, self.low, self.high, dtype)


@frozen
class Normal(Initializer):
    """From the normal distribution of this ``mean`` and this standard deviation ``std``.

    Raises   ``ValueError`` for numbers that are not finite, and an ``std`` below 0.
    Source   elementary; ``torch.nn.init.normal_``.
    """

    mean: float = field(default=0.0, validator=number())
    std: float = field(default=1.0, validator=number(0.0))

    def __call__(self, rng: Key | int, shape: Shape, dtype: torch.dtype | None = None) -> Tensor:
        return random.normal(rng, shape, self.mean, self.std, dtype)


@frozen
class TruncatedNormal(Initializer):
    """From the normal distribution of ``mean`` and ``std`` on condition that low ≤ x ≤ high; the bounds are values, as in torch.

    Raises   ``ValueError`` for numbers that are not finite, an ``std`` that is not above 0, and bounds out of order.
    Source   ``torch.nn.init.trunc_normal_``'s distribution.
    """

    mean: float = field(default=0.0, validator=number())
    std: float = field(default=1.0, validator=number(above=0.0))
    low: float = field(default=-2.0, validator=number())
    high: float = field(default=2.0, validator=_high)

    def __call__(self, rng: Key | int, shape: Shape, dtype: torch.dtype | None = None) -> Tensor:
        return random.truncated_normal(rng, shape, self.mean, self.std, self.low, self.high, dtype)
