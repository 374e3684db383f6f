"""Transformer blocks: attention and an mlp, each with a norm and a shortcut, with the layers' names in torch.nn.

    encoder   h = x + A(N x),     y = h + M(N h)                                  norms first
              h = N(x + A x),     y = N(h + M h)                                  norms last
    decoder   h = x + A(N x),     g = h + C(N h, m),     y = g + M(N g)           and likewise with norms last
    M h       = linear2(dropout(activation(linear1 h)))

A is self-attention, C attention to a memory m, N a norm. x and y are (N, length, embed_dim), m is (N, steps, memory_dim). gx and
gm are the sums over the ways that lead from them to y. Masks are those of ``MultiHeadAttention``, True where a query may see a
key.
"""

from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet.blocks.wired import SUM, Forms, Wired
from funcnet.combinator import layer_or_none, layers_only
from funcnet.combinators.dag import Names, Node
from funcnet.contract import Layer, Params
from funcnet.errors import flag, is_number, is_whole, value_error
from funcnet.layers.activation.glu import GLU, Gated
from funcnet.layers.activation.self_gated import GELU
from funcnet.layers.attention.multihead import MultiHeadAttention
from funcnet.layers.linear.linear import Linear
from funcnet.layers.noise.dropout import Dropout
from funcnet.layers.norm.layer_norm import LayerNorm
from funcnet.value import frozen

_GELU = GELU()

_OF_STEPS = ("rotary", "window", "alibi")
"""Options of attention that go by the distance of steps, which a sequence and a memory do not share."""

Carry = dict[str, Any]


@frozen
class TransformerBlock(Wired):
    """The layers of a transformer block, by torch.nn's names; made by ``transformer_encoder_block`` and its like.

        h = x + dropout1(self_attn(norm1 x)),  y = h + dropout2(linear2(dropout(activation(linear1(norm2 h)))))
        gx = gh + norm1's vjp of self_attn's vjp of dropout1's vjp of gh,  and likewise gh from gy

    With ``multihead_attn``, which sees a memory, and ``norm3`` there is a third step between the two.

    Args:
        norm1: Norm of self-attention.
        self_attn: Self-attention, of a tensor or of (x, mask).
        dropout1: What comes after ``self_attn``.
        norm2: Norm of the attention to the memory, or of the mlp where there is no memory.
        multihead_attn: Attention to a memory, of (x, memory, memory) or of (x, memory, memory, mask); ``None`` without memory.
        dropout2: What comes after ``multihead_attn``, or after ``linear2`` where there is no memory.
        norm3: Norm of the mlp, where there is a memory.
        linear1: First layer of the mlp.
        activation: What comes after ``linear1``.
        dropout: What comes after ``activation``.
        linear2: Last layer of the mlp.
        dropout3: What comes after ``linear2``, where there is a memory.
        norm_first: Whether a norm comes before its layer, or after the sum.

    Shape:
        x (N, length, embed_dim) or (x, mask) → y as x; with a memory (x, memory), (x, memory, memory_mask) or
        (x, memory, memory_mask, mask). Masks broadcast to (N, heads, queries, keys).

    Params:
        Those of the layers, in a dict by their names.

    Cache:
        Those of the layers, in a dict by their names, and the number of masks.

    Raises:
        ValueError: For an x of other entries, and what the layers raise, with a note that says which.

    Source:
        Vaswani et al. 2017, section 3.1; norms first: Xiong et al. 2020.
    """

    norm1: Layer = field(kw_only=True, validator=layers_only)
    self_attn: Layer = field(kw_only=True, validator=layers_only)
    dropout1: Layer | None = field(kw_only=True, default=None, validator=layer_or_none)
    norm2: Layer = field(kw_only=True, validator=layers_only)
    multihead_attn: Layer | None = field(kw_only=True, default=None, validator=layer_or_none)
    dropout2: Layer | None = field(kw_only=True, default=None, validator=layer_or_none)
    norm3: Layer | None = field(kw_only=True, default=None, validator=layer_or_none)
    linear1: Layer = field(kw_only=True, validator=layers_only)
    activation: Layer = field(kw_only=True, validator=layers_only)
    dropout: Layer | None = field(kw_only=True, default=None, validator=layer_or_none)
    linear2: Layer = field(kw_only=True, validator=layers_only)
    dropout3: Layer | None = field(kw_only=True, default=None, validator=layer_or_none)
    norm_first: bool = field(kw_only=True, default=True, validator=flag)

    def __attrs_post_init__(self) -> None:
        if (self.multihead_attn is None) != (self.norm3 is None):
            raise value_error(self.label, "norm3 must come with multihead_attn, and only with it", self.norm3)
        super().__attrs_post_init__()

    def forms(self) -> Forms:
        if self.multihead_attn is None:
            return ("x",), ("x", "mask")
        names = ("x", "memory", "memory_mask", "mask")
        return names[:2], names[:3], names

    def nodes(self, inputs: Names) -> list[Node]:
        made: list[Node] = []
        at = "x"
        for i, steps in enumerate(self._branches(inputs), 1):
            norm, start = f"norm{i}", at
            if self.norm_first:
                made.append((norm, getattr(self, norm), (at,)))
                at = norm
            for name, *others in steps:
                if getattr(self, name) is not None:
                    made.append((name, getattr(self, name), (at, *others)))
                    at = name
            made.append((f"sum{i}", SUM, (start, at)))
            at = f"sum{i}"
            if not self.norm_first:
                made.append((norm, getattr(self, norm), (at,)))
                at = norm
        return made

    def _branches(self, inputs: Names) -> list[list[Names]]:
        """Return the layers of each branch by their names, with what they get besides the values that pass through."""
        masks = [tuple([name for name in inputs if name == one]) for one in ("mask", "memory_mask")]
        attend: list[Names] = [("self_attn", *masks[0]), ("dropout1",)]
        forward: list[Names] = [("linear1",), ("activation",), ("dropout",), ("linear2",)]
        if self.multihead_attn is None:
            return [attend, [*forward, ("dropout2",)]]
        look: list[Names] = [("multihead_attn", "memory", "memory", *masks[1]), ("dropout2",)]
        return [attend, look, [*forward, ("dropout3",)]]

    def init_carry(
        self,
        batch: int | None,
        max_length: int,
        *,
        params: Params = None,
        memory: Any = None,
        dtype: torch.dtype | None = None,
        device: Any = None,
    ) -> Carry:
        """Return what ``decode`` starts with: room for ``max_length`` steps, and the keys and values of the memory.

        A block with a memory needs its ``params`` and the ``memory``, a tensor or (memory, mask), whose dtype and device count.

        Raises   ``ValueError`` for attention without this method, and where a memory is missing, or given and not needed.
        """
        if (memory is None) != (self.multihead_attn is None):
            rule = "init_carry must be given params and memory for a block with multihead_attn, and for no other"
            raise value_error(self.label, rule, memory)
        carry = {}
        if memory is not None:
            memory, *mask = memory if isinstance(memory, tuple) else (memory,)
            dtype, device = dtype or memory.dtype, device or memory.device
            carry["multihead_attn"] = self._decoder("multihead_attn").memory_carry(params["multihead_attn"], memory, *mask)
        own = self._decoder("self_attn").init_carry(batch, max_length, dtype=dtype, device=device)
        return {"self_attn": own, **carry}

    def decode(self, params: Params, x: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        """Return y for the next steps x, one or more, which see all that came before, and the new carry.

        Raises   ``ValueError`` for self-attention that is not causal, and for more steps than the carry has room for.
        """
        after = dict(carry)

        def call(name: str, layer: Any, p: Params, entry: Any) -> Any:
            if name not in carry:
                return layer(p, entry)
            y, after[name] = self._decoder(name).decode(p, entry[0] if isinstance(entry, tuple) else entry, carry[name])
            return y

        graph = self._graphs[0]
        y: Tensor = graph.evaluate(self.node_params(params), (x, None) if graph.inputs[1:] else x, call)
        return y, after

    def _decoder(self, name: str) -> Any:
        """Return an attention that decodes."""
        attention = getattr(self, name)
        if not hasattr(attention, "decode"):
            raise value_error(self.label, f"to decode, {name} must have init_carry and decode, as MultiHeadAttention", attention)
        return attention


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
        norm: A norm, of which every place has params of its own; by default ``LayerNorm(embed_dim)``.
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
