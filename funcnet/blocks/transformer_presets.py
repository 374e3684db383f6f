"""Encoder and decoder blocks as in torch.nn; ``TransformerBlock`` has their formulas."""

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

_ONLY_SELF_ATTENTION = ("rotary", "window", "alibi")
"""Options of attention that depend on the distance of steps, which is undefined between a sequence and a memory."""


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

        pre-norm   h = x + A(N x)        y = h + M(N h)
        post-norm  h = N(x + A x)        y = N(h + M h)        A self-attention, M the mlp, N a norm

    Params have the paths of torch.nn. Its defaults differ: dropout 0.1, ReLU and ``norm_first=False``. With ``is_causal=True`` it
    is the block of a language model, and ``decode`` runs it step by step.

    Args:
        embed_dim: Number of features of x and y.
        num_heads: Number of heads; it must divide ``embed_dim``.
        hidden: Number of features within the mlp; ``None`` for 4 embed_dim.
        dropout: Probability of dropping an attention weight, an element of either branch's output, or an element within the mlp.
        activation: Activation of the mlp. With a gated activation, like ``SwiGLU()``, ``linear1`` has twice as many features.
        norm: Norm layer, used for all norms with separate params; ``None`` for ``LayerNorm(embed_dim)``.
        norm_first: Whether norms come before their layers (pre-norm) instead of after the sums (post-norm).
        bias: Whether attention, linear layers and the default norm have biases.
        attention: Further fields of ``MultiHeadAttention``: ``is_causal``, ``num_kv_heads``, ``rotary``, ``alibi``, ``soft_cap``,
            ``qk_norm``, ``window``, ``initializer``.

    Shape:
        x (N, length, embed_dim), or (x, mask) with a mask from ``padding_mask``, (N, 1, 1, length) → y (N, length, embed_dim)

    Returns:
        A ``TransformerBlock``.

    Raises:
        ValueError: If a size is below 1, or a layer rejects its arguments.
        TypeError: For unknown keyword arguments.

    References:
        Vaswani et al. 2017, section 3.1; Xiong et al. 2020 for pre-norm.

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
    """Compose self-attention, attention to a memory and an mlp: ``torch.nn.TransformerDecoderLayer``.

        pre-norm   h = x + A(N x)        g = h + C(N h, m)        y = g + M(N g)
        post-norm  h = N(x + A x)        g = N(h + C(h, m))       y = N(g + M g)

    A is self-attention, C attention to the memory m, M the mlp, N a norm. The mask of x comes last and is rarely needed: in a
    causal sequence that is padded at its end, no step sees the padding. ``decode`` runs the block step by step, with a carry from
    ``init_carry``, which holds the keys and values of the memory. Params have the paths of torch.nn.

    Args:
        embed_dim: Number of features of x and y.
        num_heads: Number of heads; it must divide ``embed_dim``.
        hidden: Number of features within the mlp; ``None`` for 4 embed_dim.
        dropout: Probability of dropping an attention weight, an element of any branch's output, or an element within the mlp.
        activation: Activation of the mlp. With a gated activation, like ``SwiGLU()``, ``linear1`` has twice as many features.
        norm: Norm layer, used for all norms with separate params; ``None`` for ``LayerNorm(embed_dim)``.
        norm_first: Whether norms come before their layers (pre-norm) instead of after the sums (post-norm).
        bias: Whether attention, linear layers and the default norm have biases.
        is_causal: Whether a step sees only itself and earlier steps in self-attention.
        memory_dim: Number of features of the memory; ``None`` for ``embed_dim``.
        attention: Further fields of ``MultiHeadAttention``, for both attentions; ``rotary``, ``window`` and ``alibi`` only apply
            to self-attention, since x and the memory have different steps.

    Shape:
        (x, memory), (x, memory, memory_mask) or (x, memory, memory_mask, mask), x (N, length, embed_dim), memory (N, steps,
        memory_dim), memory_mask (N, 1, 1, steps), mask (N, 1, 1, length) → y (N, length, embed_dim)

    Returns:
        A ``TransformerBlock``.

    Raises:
        ValueError: If a size is below 1, or a layer rejects its arguments.
        TypeError: For unknown keyword arguments.

    References:
        Vaswani et al. 2017, section 3.1; Xiong et al. 2020 for pre-norm.

    >>> import torch
    >>> block = transformer_decoder_block(8, 2)
    >>> block(block.init(0), (torch.ones(2, 5, 8), torch.ones(2, 3, 8))).shape
    torch.Size([2, 5, 8])
    """
    attend = MultiHeadAttention(embed_dim, num_heads, dropout, bias, is_causal=is_causal, **attention)
    layers = _layers("transformer_decoder_block", embed_dim, hidden, activation, norm, bias)
    drops = _dropouts(dropout, 3)
    of_memory = {name: value for name, value in attention.items() if name not in _ONLY_SELF_ATTENTION}
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
    """Return the dropout of the mlp and of each branch; none for p = 0."""
    if is_number(p) and p == 0:
        return {}
    return {name: Dropout(p) for name in ("dropout", *[f"dropout{i}" for i in range(1, count + 1)])}
