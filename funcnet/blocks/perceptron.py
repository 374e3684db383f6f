"""Multilayer perceptrons: linear maps with an activation between them, as an expression of layers.

    mlp      y = Lₙ a(... a(L₁ x))

L is a Linear, a an activation. x and y are (..., features).
"""

from collections.abc import Sequence
from itertools import pairwise

from funcnet.combinators.sequential import Serial, serial
from funcnet.contract import Layer
from funcnet.errors import adds_location, describe, is_number, is_whole, value_error
from funcnet.initializers.elementary import Initializer
from funcnet.layers.activation.rectifiers import ReLU
from funcnet.layers.linear.linear import Linear
from funcnet.layers.noise.dropout import Dropout

_RELU = ReLU()


def _dropped(p: float) -> list[Layer]:
    return [] if is_number(p) and p == 0 else [Dropout(p)]


@adds_location("mlp")
def mlp(
    sizes: Sequence[int | None],
    activation: Layer = _RELU,
    *,
    output_activation: Layer | None = None,
    dropout: float = 0.0,
    bias: bool = True,
    initializer: str | Initializer = "xavier_normal",
) -> Serial:
    """Compose Linears of these ``sizes``, the input's first, with ``activation``, and ``dropout``, between them.

    The input's size may be ``None``, for ``infer_sizes`` to find. ``output_activation`` comes last where it is given. ``dropout``
    is the fraction that is dropped; ``bias`` and ``initializer`` are those of each ``Linear``.

    >>> mlp([2, 25, 2])
    serial(Linear(in_features=2, out_features=25), ReLU(), Linear(in_features=25, out_features=2))

    Params   a tuple: a Linear's ``weight`` (out, in) and ``bias`` (out,), and ``{}`` for what has none.
    Raises   ``ValueError`` for fewer than two sizes or one below 1, and what ``Linear`` and ``Dropout`` raise.
    """
    if not isinstance(sizes, (tuple, list)):
        raise value_error("mlp", "sizes must be two or more whole numbers, the input's and each layer's", sizes)
    known = sizes[1:] if sizes and sizes[0] is None else sizes
    if len(sizes) < 2 or not all(is_whole(size) and size > 0 for size in known):
        raise value_error("mlp", "sizes must be two or more whole numbers, the input's and each layer's", describe(list(sizes)))
    layers: list[Layer] = []
    for size, after in pairwise(sizes):
        layers += [Linear(size, after, bias, initializer), activation, *_dropped(dropout)]
    layers = layers[: len(layers) - 1 - bool(dropout)]
    return serial(*layers, *([] if output_activation is None else [output_activation]))
