"""Sources: layers without an input; x is the empty tuple ``()``.

A field holds the shape of y, for example (rows, features).
"""

import base64
import zlib
from functools import lru_cache
from math import prod
from typing import Any, Self

import torch
from attrs import field
from torch import Tensor

from funcnet import random
from funcnet.checks import Misfit, check_gy
from funcnet.contract import Grads, Layer, Params, Rng, Shape
from funcnet.errors import MOST, describe, flag, is_whole_tuple, number, valid_if, value_error
from funcnet.kernels.private_names import constant
from funcnet.kernels.tracing import is_compiling
from funcnet.random.keys import Key
from funcnet.value import frozen

_MOST = 1 << 20
_is_shape = valid_if(lambda got: is_whole_tuple(got, 0), "a tuple of sizes", most=MOST)


@frozen
class Parameter(Layer):
    """A parameter that is used directly: its params are one tensor, not a dict, and y is that tensor.

        y  = params
        gp = gy, or ``None`` with ``trainable=False``        gx = ()

    In ``graph`` it is a node without inputs, for a forward pass that uses a parameter directly.

    Args:
        shape: The shape of the parameter.
        mean: Mean of the initial values.
        std: Standard deviation of the initial values, which are normal; 0 makes all of them equal.
        trainable: Whether it has a gradient; ``False`` for a buffer.

    Shape:
        x () → y (*shape)

    Params:
        One tensor: (*shape), normal with ``mean`` and ``std``.

    Cache:
        The params, not copied.

    Raises:
        ValueError: If x is not ``()``.

    References:
        ``torch.nn.Parameter``.

    >>> Parameter((2,), mean=1.0).init(0)
    tensor([1., 1.])
    """

    shape: Shape = field(validator=_is_shape)
    mean: float = field(default=0.0, validator=number())
    std: float = field(default=0.0, validator=number(0.0))
    trainable: bool = field(default=True, validator=flag)

    def init(self, rng: Key | int) -> Any:
        if not self.std:
            return torch.full(self.shape, float(self.mean), device=random.as_key(rng).device)
        return random.normal(rng, self.shape) * self.std + self.mean

    def apply(self, params: Any, x: tuple[()], rng: Rng = None) -> tuple[Tensor, Tensor]:
        if x != () or not isinstance(params, Tensor) or params.shape != self.shape:
            raise Misfit
        return params, params

    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> tuple[Any, tuple[()]]:
        trained = self.trainable and cache.is_floating_point()
        return check_gy(self, gy, cache.shape, cache) if trained else None, ()

    def param_shapes(self) -> None:
        return None

    def complaint(self, x: Any) -> str:
        return f"x must be () and params one tensor of shape {self.shape}"


def _read_tensor(shape: Shape, dtype: str, data: str) -> Tensor:
    """Return the tensor encoded in ``data``; in compiled code its numbers are constants."""
    kind = getattr(torch, dtype)
    if is_compiling():
        return torch.tensor(_numbers(dtype, data), dtype=kind).reshape(shape)
    numbers = _decode(data)
    return torch.frombuffer(numbers, dtype=kind).reshape(shape) if numbers else torch.empty(shape, dtype=kind)


@constant
def _numbers(dtype: str, data: str) -> list[Any]:
    """Return the numbers of a tensor as a list."""
    numbers = _decode(data)
    return torch.frombuffer(numbers, dtype=getattr(torch, dtype)).tolist() if numbers else []


@lru_cache(maxsize=256)
def _decode(data: str) -> bytearray:
    """Return the bytes of a tensor, decoded once: 100 000 numbers take a millisecond."""
    return bytearray(zlib.decompress(base64.b85decode(data)))


@frozen
class ConstantTensor(Layer):
    """A constant tensor, encoded in a field; ``ConstantTensor.of(tensor)`` builds the layer.

        y  = the constant
        gx = 0, or ()

    y is on the device of x, whose values are not read; with x = ``()`` it is in main memory.

    Args:
        shape: The shape of y.
        dtype: The name of its dtype, like ``"float32"``.
        data: Its numbers, compressed, in base 85.

    Shape:
        x () or a tensor (...) → y (*shape)

    Cache:
        ``x``, not copied.

    Raises:
        ValueError: If ``data`` does not encode a tensor of that shape and dtype.

    References:
        ``torch.nn.Module.register_buffer``.

    >>> ConstantTensor.of(torch.tensor([1.0, 2.0]))({}, ())
    tensor([1., 2.])
    """

    shape: Shape = field(validator=_is_shape)
    dtype: str = field(
        validator=valid_if(lambda got: isinstance(getattr(torch, str(got), None), torch.dtype), "a name of a dtype")
    )
    data: str = field(validator=valid_if(lambda got: isinstance(got, str), "text"))

    @classmethod
    def of(cls, tensor: Tensor) -> Self:
        """Return the layer for a tensor.

        Args:
            tensor: A dense tensor of at most 2²⁰ elements.

        Returns:
            The layer whose y is this tensor.

        Raises:
            ValueError: If the tensor is not dense, or has more elements.

        >>> ConstantTensor.of(torch.zeros(2, 3)).shape
        (2, 3)
        """
        if not isinstance(tensor, Tensor) or tensor.numel() > _MOST or tensor.layout is not torch.strided:
            raise value_error("ConstantTensor.of", f"tensor must be a dense tensor of at most {_MOST} elements", describe(tensor))
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        written = bytes(flat.view(torch.uint8).tolist()) if flat.numel() else b""
        name = str(tensor.dtype).removeprefix("torch.")
        return cls(tuple(tensor.shape), name, base64.b85encode(zlib.compress(written)).decode())

    def __attrs_post_init__(self) -> None:
        kind = getattr(torch, self.dtype)
        try:
            count = len(_decode(self.data))
        except (ValueError, zlib.error):
            count = -1
        if count != prod(self.shape) * kind.itemsize:
            rule = f"data must encode a tensor of shape {self.shape} and dtype {self.dtype}"
            raise value_error("ConstantTensor", rule, f"text of {len(self.data)} characters")

    @property
    def output_dtype(self) -> torch.dtype | None:
        return getattr(torch, self.dtype)  # type: ignore[no-any-return]

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Tensor, Any]:
        bare = isinstance(x, tuple)
        if params != {} or (x != () if bare else not isinstance(x, Tensor)):
            raise Misfit
        y = _read_tensor(self.shape, self.dtype, self.data)
        return (y.clone() if bare else y.to(x.device, copy=True)), x

    def vjp(self, params: Params, cache: Any, gy: Any) -> tuple[Grads, Any]:
        if isinstance(cache, tuple):
            return params, ()
        return params, torch.zeros_like(cache) if cache.is_floating_point() else None

    def complaint(self, x: Any) -> str:
        return "x must be () or a tensor"
