"""Size inference: turn a net with ``None`` for the sizes of its inputs into the same net with all sizes.

    net = serial(Conv2d(None, 16, 3), ReLU(), Flatten(), Linear(None, 10))
    net = infer_sizes(net, (64, 1, 28, 28))        y₀ = x;   fᵢ with the sizes of yᵢ₋₁;   yᵢ = fᵢ(yᵢ₋₁)

A layer with missing sizes is a value like any other, but has no params. ``infer_sizes`` returns a new net, as ``inference()``
does. x goes through the layers on the meta device, where tensors have a shape but no data: nothing is computed and no memory is
used, except by a custom ``init`` that reads its key.
"""

from typing import Any, TypeVar

import torch
from torch import Tensor

from funcnet import tree
from funcnet.contract import Layer
from funcnet.errors import describe, is_whole, value_error
from funcnet.walking import require_layer

_L = TypeVar("_L", bound=Layer)


def infer_sizes(net: _L, x: Any, dtype: torch.dtype | None = None) -> _L:
    """Return the net with every size of ``None`` inferred from an input.

    A net without missing sizes is returned unchanged, but x goes through it too: wrong sizes are found before training. The
    floating dtype of x does not matter, and neither does the number of rows, unless a layer requires several.

    Args:
        net: The net.
        x: An input: a tensor, a shape, or a tuple or dict of them.
        dtype: The dtype of inputs given as shapes; for indices ``torch.int64``.

    Raises:
        ValueError: If x is none of these, or a layer rejects it; a note says which layer.

    >>> from funcnet.combinators.sequential import serial
    >>> from funcnet.layers.linear.linear import Linear
    >>> infer_sizes(serial(Linear(None, 25), Linear(None, 10)), (64, 784))
    serial(Linear(in_features=784, out_features=25), Linear(in_features=25, out_features=10))
    """
    sized: Any = require_layer("infer_sizes", net).infer(on_meta(x, dtype))[0]
    return sized  # type: ignore[no-any-return]  # the same net, unless it is a single shape_dependent layer


def output_shape(net: Layer, x: Any, dtype: torch.dtype | None = None) -> Any:
    """Return the shape of the output of ``net``, or the tree of shapes, without computing anything.

    Args:
        net: The net; sizes of ``None`` are inferred.
        x: An input: a tensor, a shape, or a tuple or dict of them.
        dtype: The dtype of inputs given as shapes; for indices ``torch.int64``.

    Raises:
        ValueError: If x is none of these, or a layer rejects it; a note says which layer.

    >>> from funcnet.layers.linear.linear import Linear
    >>> output_shape(Linear(None, 10), (64, 784))
    torch.Size([64, 10])
    """
    return tree.map(lambda leaf: leaf.shape, require_layer("output_shape", net).infer(on_meta(x, dtype, "output_shape"))[1])


def on_meta(x: Any, dtype: torch.dtype | None, who: str = "infer_sizes") -> Any:
    """Return x, or a tensor of its shape, on the meta device; floating tensors have the default dtype, like fresh params."""
    if x is None:
        return None
    if isinstance(x, Tensor):
        return x.to("meta", torch.get_default_dtype() if x.is_floating_point() else x.dtype)
    if isinstance(x, (tuple, list)) and all(is_whole(n) and n >= 0 for n in x):
        return on_meta(_empty(tuple(x), dtype, who), None, who)
    if isinstance(x, (tuple, list)):
        return tuple([on_meta(one, dtype, who) for one in x])
    if isinstance(x, dict):
        return {name: on_meta(one, dtype, who) for name, one in x.items()}
    raise value_error(who, "x must be a tensor, a shape, or a tuple or dict of them", describe(x))


def _empty(shape: tuple[int, ...], dtype: torch.dtype | None, who: str) -> Tensor:
    if dtype is not None and not isinstance(dtype, torch.dtype):
        raise value_error(who, "dtype must be a torch.dtype, or None", describe(dtype))
    try:
        return torch.empty(shape, dtype=dtype, device="meta")
    except (RuntimeError, TypeError):
        raise value_error(who, "x must have a shape of less than 2**63 bytes", str(shape)) from None
