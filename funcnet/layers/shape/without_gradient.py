"""Functions without a gradient: comparisons, positions, new tensors with sizes of x.

x is a tensor (...), or a tuple of tensors of any shapes.
"""

from collections.abc import Callable
from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet.checks import Misfit, require_no_params
from funcnet.contract import Grads, Layer, Params, Rng
from funcnet.errors import describe, one_of, valid_if
from funcnet.layers.shape.templates import comparable, evaluate, inputs_of
from funcnet.value import frozen

_COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge", "isnan", "isinf", "isfinite", "isclose")
_LOGIC = ("logical_and", "logical_or", "logical_xor", "logical_not", "bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not")
_PLACES = ("argmax", "argmin", "argsort", "any", "all", "count_nonzero", "bucketize", "searchsorted")
_ARITHMETIC = ("add", "sub", "mul", "div", "pow", "matmul", "maximum", "minimum", "abs", "sign", "clamp", "sum", "cumsum")
_MOVED = ("cat", "stack", "where", "repeat_interleave")
_NUMBERS = ("floor_divide", "remainder", "fmod", "zeros_like", "ones_like", "full_like")
_NEW = ("zeros", "ones", "full", "arange", "linspace", "eye")


_ONLY_INTEGERS = frozenset((*_ARITHMETIC, *_MOVED))
"""Functions that have a gradient for floating numbers; here they accept only integers."""


def _to(x: Tensor, dtype: torch.dtype | Tensor) -> Tensor:
    return x.to(dtype)


def _one_hot(x: Tensor, classes: int) -> Tensor:
    return (x.unsqueeze(-1) == torch.arange(classes, device=x.device)).long()


FUNCTIONS: dict[str, Callable[..., Any]] = {
    name: getattr(torch, name) for name in (*_COMPARISONS, *_LOGIC, *_PLACES, *_NUMBERS, *_NEW, *_ARITHMETIC, *_MOVED)
} | {"to": _to, "one_hot": _one_hot}
"""The functions by name; each takes the arguments of the torch function."""


@frozen
class NoGradient(Layer):
    """A torch function without a gradient: a comparison, the position of a maximum, a new tensor, a sum of integers.

        y  = f(arguments), some of which come from x
        gx = 0

    New tensors are on the device of x; with x = ``()`` they are in main memory.

    Args:
        name: The name of the torch function, like ``"argmax"``; ``"to"`` converts to a dtype.
        arguments: The positional arguments; ``InputTensor(0)`` is x, and sizes of x can replace numbers.
        keywords: The keyword arguments, as pairs.

    Shape:
        x (...), a tuple of tensors, or () → y (...), as the function returns it

    Cache:
        ``x``, not copied.

    Raises:
        ValueError: If x does not have the tensors and axes that the arguments name, or holds floating numbers for a function with
            a gradient, like ``"add"``.

    References:
        The functions of ``torch`` by the same names.

    >>> from funcnet.layers.shape.templates import InputTensor
    >>> NoGradient("gt", (InputTensor(0), 0))({}, torch.tensor([1.0, -1.0]))
    tensor([ True, False])
    """

    name: str = field(validator=one_of(*FUNCTIONS))
    arguments: tuple[Any, ...] = field(
        default=(), validator=valid_if(lambda got: isinstance(got, tuple), "a tuple"), eq=comparable
    )
    keywords: tuple[tuple[str, Any], ...] = field(
        default=(),
        validator=valid_if(
            lambda got: isinstance(got, tuple) and all(isinstance(one, tuple) and len(one) == 2 for one in got),
            "a tuple of pairs",
        ),
    )

    batch_dependent = True

    @property
    def output_dtype(self) -> torch.dtype | None:
        dtype = dict(self.keywords).get("dtype", torch.get_default_dtype() if self.name in _NEW else None)
        return dtype if isinstance(dtype, torch.dtype) and dtype.is_floating_point else None

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Tensor, Any]:
        require_no_params(self, params)
        inputs = inputs_of(x)
        if not all([isinstance(one, Tensor) for one in inputs]):  # noqa: C419
            raise Misfit
        if self.name in _ONLY_INTEGERS and any([one.is_floating_point() for one in inputs]):  # noqa: C419
            raise Misfit
        arguments = evaluate(self.arguments, inputs)
        keywords = {name: evaluate(one, inputs) for name, one in self.keywords}
        if self.name in _NEW and inputs:
            keywords["device"] = inputs[0].device
        return FUNCTIONS[self.name](*arguments, **keywords), x

    def vjp(self, params: Params, cache: Any, gy: Any) -> tuple[Grads, Any]:
        if isinstance(cache, tuple):
            return params, tuple([None for _ in cache])
        return params, torch.zeros_like(cache) if cache.is_floating_point() else None

    def complaint(self, x: Any) -> str:
        inputs = [one for one in inputs_of(x) if isinstance(one, Tensor)]
        if self.name in _ONLY_INTEGERS and any(one.is_floating_point() for one in inputs):
            return f"x must hold integers: for floating numbers {self.name} has a gradient"
        return f"x must have the tensors and axes that the arguments of {self.name} name, not {describe(x)}"
