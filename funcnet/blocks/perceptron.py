"""Multilayer perceptrons: linear layers with an activation between them, composed of existing layers.

x and y are (..., features).
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


def _dropouts(p: float) -> list[Layer]:
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
    """Compose ``Linear`` layers of these sizes, with an activation and dropout between them.

        y = Lₙ a(... a(L₁ x))        L a Linear, a the activation

    The backward pass calls the ``vjp`` of the layers in reverse order.

    Args:
        sizes: Number of input features (``None`` to infer it with ``infer_sizes``), then the number of output features of each
            layer.
        activation: The activation between the linear layers.
        output_activation: A layer after the last linear layer; ``None`` to omit it.
        dropout: Probability of dropping an element after each activation.
        bias: Whether each ``Linear`` has a bias.
        initializer: Initializer of each weight, by name or value.

    Shape:
        x (..., sizes[0]) → y (..., sizes[-1])

    Params:
        A tuple with one entry per layer: ``weight`` (out, in) and ``bias`` (out,) of a Linear, ``{}`` of the others.

    Returns:
        A ``serial`` of the layers.

    Raises:
        ValueError: If there are fewer than two sizes, or one is below 1.

    >>> mlp([2, 25, 2])
    serial(Linear(in_features=2, out_features=25), ReLU(), Linear(in_features=25, out_features=2))
    """
    if not isinstance(sizes, (tuple, list)):
        raise value_error("mlp", "sizes must be two or more whole numbers, of the input and of each layer", sizes)
    known = sizes[1:] if sizes and sizes[0] is None else sizes
    if len(sizes) < 2 or not all(is_whole(size) and size > 0 for size in known):
        raise value_error("mlp", "sizes must be two or more whole numbers, of the input and of each layer", describe(list(sizes)))
    layers: list[Layer] = []
    for size, after in pairwise(sizes):
        layers += [Linear(size, after, bias, initializer), activation, *_dropouts(dropout)]
    layers = layers[: len(layers) - 1 - bool(dropout)]
    return serial(*layers, *([] if output_activation is None else [output_activation]))
