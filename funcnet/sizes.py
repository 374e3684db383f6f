"""Sizes inferred from an input: a net whose sizes are ``None`` where they describe what comes in, and the net with all known.

    net = serial(Conv2d(None, 16, 3), ReLU(), Flatten(), Linear(None, 10))
    net = infer_sizes(net, (64, 1, 28, 28))        y₀ = x;   fᵢ with the sizes of yᵢ₋₁;   yᵢ = fᵢ(yᵢ₋₁)

A layer without its sizes is a value like any other, but has no params. It is rewritten, as by ``inference()``: x goes through
the layers on the meta device, where tensors have a shape and no numbers, so nothing is computed and no memory is taken (but by an
``init`` of one's own that reads its key).
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
    """Return the net with every size that is ``None`` taken from what comes there when x comes in.

    x is a tensor, a tuple or dict of them, or in place of any tensor its shape; ``dtype`` is then that of shapes, for indices
    ``torch.int64``. Which floating type x has does not matter, nor how many rows there are, if they are not too few for a layer.

    A net of known sizes comes back as it is, after x went through, so that what does not fit is found before any training.

    Raises   ``ValueError`` for an x that is none of these, and what a layer raises, with a note where in the net.
    """
    sized: Any = require_layer("infer_sizes", net).infer(on_meta(x, dtype))[0]
    return sized  # type: ignore[no-any-return]  # the same net, but for a shape_dependent one by itself


def output_shape(net: Layer, x: Any, dtype: torch.dtype | None = None) -> Any:
    """Return the shape of the output of ``net``, or the tree of shapes, and compute nothing.

    x and ``dtype`` are those of ``infer_sizes``.

    >>> from funcnet.layers.linear.linear import Linear
    >>> output_shape(Linear(None, 10), (64, 784))
    torch.Size([64, 10])

    Raises   ``ValueError`` as ``infer_sizes`` does.
    """
    return tree.map(lambda leaf: leaf.shape, require_layer("output_shape", net).infer(on_meta(x, dtype, "output_shape"))[1])


def on_meta(x: Any, dtype: torch.dtype | None, who: str = "infer_sizes") -> Any:
    """Return x, or what has its shape, on the meta device; floating tensors have the default dtype, as fresh params do."""
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
