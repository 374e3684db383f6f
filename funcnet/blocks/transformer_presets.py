"""Encoder and decoder blocks of torch.nn's forms; what they compute, ``transformer_block`` says."""

from typing import Any

from funcnet.blocks.transformer_block import TransformerBlock
from funcnet.contract import Layer
from funcnet.errors import adds_location, is_number, is_whole, value_error
from funcnet.layers.activation.glu import GLU, Gated
from funcnet.layers.activation.self_gated import GELU
from funcnet.layers.attention.multihead import MultiHeadAttention
from funcnet.layers.linear.linear import Linear
from funcnet.layers.noise.dropout import Dropout
from funcnet.layers.norm.layer_norm import LayerNorm

_GELU = GELU()

_OF_STEPS = ("rotary", "window", "alibi")
"""Options of attention that go by the distance of steps, which a sequence and a memory do not share."""


@adds_location("transformer_encoder_block")
def transformer_encoder_block(
    embed_dim: int,
    num_heads: int,
    hidden: int | None = None,
    *,
    dropout: float = 0.0,
    activation: Layer = _GELU,
    norm: Layer | None = None,
    norm_first: bool = True,
    bias: bool = True,
    **attention: Any,
) -> TransformerBlock:
    """Compose self-attention and an mlp, each with a norm and a shortcut: ``torch.nn.TransformerEncoderLayer``.

        h = x + A(N x),  y = h + M(N h)

    x is a tensor, or (x, mask) with a mask as ``padding_mask`` makes it; y is a tensor in either case. Params have the paths of
    torch.nn, whose defaults are dropout 0.1, ReLU and ``norm_first=False``. With ``is_causal=True`` it is the block of a language
    model, and ``decode`` takes one step after the other.

    Args:
        embed_dim: Features of x and y.
        num_heads: Number of heads, a divisor of ``embed_dim``.
        hidden: Features within the mlp, by default 4 embed_dim.
        dropout: Fraction that is dropped of attention weights, of both outputs and within the mlp.
        activation: Activation of the mlp. For a gated one, such as ``SwiGLU()``, ``linear1`` has twice as many features.
        norm: Norm at every place, each with separate params; by default ``LayerNorm(embed_dim)``.
        norm_first: Whether a norm comes before its layer, or after the sum.
        bias: Whether attention, linear layers and the default norm have biases.
        attention: Further fields of ``MultiHeadAttention``: ``is_causal``, ``num_kv_heads``, ``rotary``, ``alibi``, ``soft_cap``,
            ``qk_norm``, ``window``, ``initializer``.

    Shape:
        x (N, length, embed_dim), or a pair of it and a mask (N, 1, 1, length) → y (N, length, embed_dim)

    Raises:
        ValueError: For sizes below 1, and what the layers raise.
        TypeError: For unknown fields.

    Source:
        Vaswani et al. 2017, section 3.1; norms first: Xiong et al. 2020.

    >>> import torch
    >>> from funcnet.layers.attention.masks import padding_mask
    >>> block = transformer_encoder_block(8, 2)
    >>> mask = padding_mask(torch.tensor([5, 3]), 5)
    >>> block(block.init(0), (torch.ones(2, 5, 8), mask)).shape
    torch.Size([2, 5, 8])
    """
    attend = MultiHeadAttention(embed_dim, num_heads, dropout, bias, **attention)
    layers = _layers("transformer_encoder_block", embed_dim, hidden, activation, norm, bias)
    drops = _dropouts(dropout, 2)
    return TransformerBlock(self_attn=attend, **layers, **drops, norm_first=norm_first)


@adds_location("transformer_decoder_block")
def transformer_decoder_block(
    embed_dim: int,
    num_heads: int,
    hidden: int | None = None,
    *,
    dropout: float = 0.0,
    activation: Layer = _GELU,
    norm: Layer | None = None,
    norm_first: bool = True,
    bias: bool = True,
    is_causal: bool = True,
    memory_dim: int | None = None,
    **attention: Any,
) -> TransformerBlock:
    """Compose self-attention, attention to a memory and an mlp, as ``torch.nn.TransformerDecoderLayer``.

        h = x + A(N x),  g = h + C(N h, m),  y = g + M(N g)

    x is (x, memory), (x, memory, memory_mask) or (x, memory, memory_mask, mask). The mask of x itself comes last and is seldom
    needed: in a causal sequence that is padded at its end no step sees the padding. ``decode`` takes one step after the other,
    with a carry from ``init_carry``, which holds the keys and values of the memory. Params have the paths of torch.nn.

    Args:
        embed_dim: As for ``transformer_encoder_block``.
        num_heads: As for ``transformer_encoder_block``.
        hidden: As for ``transformer_encoder_block``.
        dropout: As for ``transformer_encoder_block``, of all three outputs.
        activation: As for ``transformer_encoder_block``.
        norm: As for ``transformer_encoder_block``.
        norm_first: As for ``transformer_encoder_block``.
        bias: As for ``transformer_encoder_block``.
        is_causal: Whether a step sees only those before it, in self-attention.
        memory_dim: Features of the memory, by default ``embed_dim``.
        attention: Further fields of ``MultiHeadAttention``, for both attentions; ``rotary``, ``window`` and ``alibi`` only for
            self-attention, as a memory's steps are others.

    Shape:
        x (N, length, embed_dim), memory (N, steps, memory_dim), memory_mask (N, 1, 1, steps), mask (N, 1, 1, length)
        → y (N, length, embed_dim)

    Raises:
        ValueError: For sizes below 1, and what the layers raise.
        TypeError: For unknown fields.

    Source:
        Vaswani et al. 2017, section 3.1; norms first: Xiong et al. 2020.

    >>> import torch
    >>> block = transformer_decoder_block(8, 2)
    >>> block(block.init(0), (torch.ones(2, 5, 8), torch.ones(2, 3, 8))).shape
    torch.Size([2, 5, 8])
    """
    attend = MultiHeadAttention(embed_dim, num_heads, dropout, bias, is_causal=is_causal, **attention)
    layers = _layers("transformer_decoder_block", embed_dim, hidden, activation, norm, bias)
    drops = _dropouts(dropout, 3)
    of_memory = {name: value for name, value in attention.items() if name not in _OF_STEPS}
    look = MultiHeadAttention(embed_dim, num_heads, dropout, bias, kdim=memory_dim, vdim=memory_dim, **of_memory)
    return TransformerBlock(
        self_attn=attend, **layers, multihead_attn=look, norm3=layers["norm1"], **drops, norm_first=norm_first
    )


def _layers(who: str, embed_dim: int, hidden: int | None, activation: Layer, norm: Layer | None, bias: bool) -> dict[str, Any]:
    """Return the layers of the mlp, and the first two norms."""
    hidden = 4 * embed_dim if hidden is None else hidden
    if not is_whole(hidden) or hidden < 1:
        raise value_error(who, "hidden must be a whole number of at least 1, or None for 4 embed_dim", repr(hidden))
    norm = LayerNorm(embed_dim, bias=bias) if norm is None else norm
    first = Linear(embed_dim, 2 * hidden if isinstance(activation, (GLU, Gated)) else hidden, bias, "torch")
    last = Linear(hidden, embed_dim, bias, "torch")
    return {"linear1": first, "activation": activation, "linear2": last, "norm1": norm, "norm2": norm}


def _dropouts(p: float, count: int) -> dict[str, Layer]:
    """Return the dropout of the mlp, and that of each branch; none for p = 0."""
    if is_number(p) and p == 0:
        return {}
    return {name: Dropout(p) for name in ("dropout", *[f"dropout{i}" for i in range(1, count + 1)])}
