"""Blocks: networks that many people write, as expressions of layers and combinators; none has a vjp of its own.

    mlp                          y = Lₙ a(... a(L₁ x))
    transformer_encoder_block    h = x + A(N x),    y = h + M(N h)                     with norms first
                                 h = N(x + A x),    y = N(h + M h)                     with norms last
    transformer_decoder_block    g = h + A(N h, m, m) between the two, on a memory m
    resnet_block                 y = a(S x + N C a(N C x))

L is a Linear, a an activation, A attention, N a norm, M an mlp, C a convolution and S the shortcut. The x and y of an mlp are
(..., features), those of the transformer's blocks (N, length, features), as is m, and those of the others (N, C, height, width).
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from funcnet.combinators.branching import residual
from funcnet.combinators.dag import graph
from funcnet.combinators.sequential import Serial, serial
from funcnet.contract import Layer, Size
from funcnet.errors import describe, is_number, is_whole, value_error
from funcnet.initializers.elementary import Initializer
from funcnet.layers.activation.rectifiers import ReLU
from funcnet.layers.activation.self_gated import GELU
from funcnet.layers.attention.multihead import MultiHeadAttention
from funcnet.layers.conv.conv import Conv2d
from funcnet.layers.linear.linear import Linear
from funcnet.layers.noise.dropout import Dropout
from funcnet.layers.norm.batch_norm import BatchNorm2d
from funcnet.layers.norm.layer_norm import LayerNorm
from funcnet.layers.operands.arithmetic import Add
from funcnet.layers.shape.reshaping import Identity

_RELU, _GELU = ReLU(), GELU()


def _dropped(p: float) -> list[Layer]:
    return [] if is_number(p) and p == 0 else [Dropout(p)]


def mlp(
    sizes: Sequence[Size],
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


def _feed_forward(embed_dim: int, hidden: int | None, activation: Layer, dropout: float) -> list[Layer]:
    size = 4 * embed_dim if hidden is None else hidden
    return [*mlp([embed_dim, size, embed_dim], activation, dropout=dropout, initializer="torch"), *_dropped(dropout)]


def transformer_encoder_block(
    embed_dim: int,
    num_heads: int,
    hidden: int | None = None,
    *,
    dropout: float = 0.0,
    activation: Layer = _GELU,
    norm: Layer | None = None,
    norm_first: bool = True,
    **attention: Any,
) -> Serial:
    """Self-attention and an mlp of ``hidden`` features (4 embed_dim), each with a norm and a shortcut, on (N, L, embed_dim).

    The attention has ``num_heads`` heads, the mlp ``activation``; ``norm_first`` puts each norm before what it is for, else it
    stands behind the sum. ``attention`` are further fields of ``MultiHeadAttention``; with ``is_causal=True`` it is the block of
    a language model. ``dropout`` is that of the weights, of both outputs and within the mlp, as in
    ``torch.nn.TransformerEncoderLayer``, whose defaults are dropout 0.1, ReLU and norms last. ``norm`` is a LayerNorm unless it
    is given, with params of its own each time.

    Raises   ``ValueError`` for sizes that ``MultiHeadAttention`` or ``mlp`` refuses, and ``TypeError`` for
             fields that there are not.
    Source   Vaswani et al. 2017, section 3.1; with norms first Xiong et al. 2020.
    """
    norm = LayerNorm((embed_dim,)) if norm is None else norm
    attend = [MultiHeadAttention(embed_dim, num_heads, dropout, **attention), *_dropped(dropout)]
    forward = _feed_forward(embed_dim, hidden, activation, dropout)
    if norm_first:
        return serial(residual(serial(norm, *attend)), residual(serial(norm, *forward)))
    return serial(residual(serial(*attend)), norm, residual(serial(*forward)), norm)


def transformer_decoder_block(
    embed_dim: int,
    num_heads: int,
    hidden: int | None = None,
    *,
    dropout: float = 0.0,
    activation: Layer = _GELU,
    norm: Layer | None = None,
    norm_first: bool = True,
    is_causal: bool = True,
    **attention: Any,
) -> Layer:
    """Self-attention, attention to a memory, and an mlp, each with a norm and a shortcut: (x, memory) to y, of x's shape.

    Options are those of ``transformer_encoder_block``: ``embed_dim``, ``num_heads``, ``hidden``, ``dropout``, ``activation``,
    ``norm``, ``norm_first`` and ``attention``, in which ``kdim`` and ``vdim`` are the memory's. Self-attention is causal unless
    ``is_causal=False``. The twin in torch is ``torch.nn.TransformerDecoderLayer``.

    Raises   ``ValueError`` as ``transformer_encoder_block`` does.
    Source   Vaswani et al. 2017, section 3.1; with norms first Xiong et al. 2020.
    """
    norm, add = LayerNorm((embed_dim,)) if norm is None else norm, Add(broadcast=False)
    own = {name: value for name, value in attention.items() if name not in ("kdim", "vdim")}
    attend = serial(MultiHeadAttention(embed_dim, num_heads, dropout, is_causal=is_causal, **own), *_dropped(dropout))
    cross = serial(MultiHeadAttention(embed_dim, num_heads, dropout, **attention), *_dropped(dropout))
    forward = serial(*_feed_forward(embed_dim, hidden, activation, dropout))
    if norm_first:
        first: Any = {"n1": (norm, "x"), "a": (attend, "n1"), "h": (add, "x", "a"), "n2": (norm, "h")}
        then: Any = {"c": (cross, "n2", "memory", "memory"), "g": (add, "h", "c"), "n3": (norm, "g")}
        return graph("x", "memory", **first, **then, m=(forward, "n3"), y=(add, "g", "m"))
    first = {"a": (attend, "x"), "s1": (add, "x", "a"), "h": (norm, "s1"), "c": (cross, "h", "memory", "memory")}
    then = {"s2": (add, "h", "c"), "g": (norm, "s2"), "m": (forward, "g"), "s3": (add, "g", "m")}
    return graph("x", "memory", **first, **then, y=(norm, "s3"))


def resnet_block(in_channels: int, out_channels: int, stride: int = 1, *, activation: Layer = _RELU) -> Serial:
    """Two convolutions 3×3 with batch norms around a shortcut, on (N, channels, height, width): the block of ResNet-18 and 34.

    From ``in_channels`` to ``out_channels``, in steps of ``stride``, with ``activation`` between and behind. Where the shape
    changes, the shortcut is a convolution 1×1 with a batch norm; all are without bias.

    Raises   ``ValueError`` for numbers below 1.
    Source   He et al. 2016, figure 5, left.
    """
    body = (_conv_norm(in_channels, out_channels, 3, stride), activation, _conv_norm(out_channels, out_channels, 3, 1))
    return serial(residual(serial(*body), _shortcut(in_channels, out_channels, stride)), activation)


def resnet_bottleneck(
    in_channels: int, channels: int, stride: int = 1, *, expansion: int = 4, activation: Layer = _RELU
) -> Serial:
    """Convolutions 1×1, 3×3 and 1×1, to ``expansion`` · channels, around a shortcut: the block of ResNet-50 and deeper.

    From ``in_channels`` to ``channels`` and on, in steps of ``stride``, with ``activation`` between and behind; else as
    ``resnet_block``.

    Raises   ``ValueError`` for numbers below 1.
    Source   He et al. 2016, figure 5, right; the stride stands at the 3×3, as in torchvision.
    """
    for name, got in (("channels", channels), ("expansion", expansion)):
        if not is_whole(got) or got < 1:
            raise value_error("resnet_bottleneck", f"{name} must be a whole number of at least 1", repr(got))
    out = expansion * channels
    down, middle, up = (
        _conv_norm(in_channels, channels, 1, 1),
        _conv_norm(channels, channels, 3, stride),
        _conv_norm(channels, out, 1, 1),
    )
    body = serial(down, activation, middle, activation, up)
    return serial(residual(body, _shortcut(in_channels, out, stride)), activation)


def _conv_norm(channels: int, out_channels: int, kernel: int, stride: int) -> Serial:
    conv = Conv2d(channels, out_channels, kernel, stride, padding=kernel // 2, bias=False, initializer="kaiming_normal")
    return serial(conv, BatchNorm2d(out_channels))


def _shortcut(channels: int, out_channels: int, stride: int) -> Layer:
    return Identity() if channels == out_channels and stride == 1 else _conv_norm(channels, out_channels, 1, stride)
