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
from funcnet.combinators.wiring import Names, Node
from funcnet.contract import Layer, Params
from funcnet.errors import describe, flag, value_error
from funcnet.value import frozen

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
        if self.multihead_attn is None and self.dropout3 is not None:
            raise value_error(self.label, "dropout3 must come with multihead_attn; without, dropout2 is the last", self.dropout3)
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
        params: Params | None = None,
        memory: Any = None,
        dtype: torch.dtype | None = None,
        device: Any = None,
    ) -> Carry:
        """Return what ``decode`` starts with: room for ``max_length`` steps, and the keys and values of the memory.

        A block with a memory needs its ``params`` and the ``memory``, a tensor or (memory, mask), whose dtype and device count.

        Raises   ``ValueError`` for attention without this method, and where a memory is missing, or given and not needed.
        """
        if (memory is None) != (self.multihead_attn is None) or (memory is not None and params is None):
            rule = "init_carry must be given params and memory for a block with multihead_attn, and for no other"
            raise value_error(self.label, rule, memory)
        carry = {}
        if memory is not None:
            memory, *mask = memory if isinstance(memory, tuple) else (memory,)
            dtype, device = dtype or memory.dtype, device or memory.device
            carry["multihead_attn"] = self._decoder("multihead_attn").memory_carry(
                self.node_params(params)["multihead_attn"], memory, *mask
            )
        own = self._decoder("self_attn").init_carry(batch, max_length, dtype=dtype, device=device)
        return {"self_attn": own, **carry}

    def decode(self, params: Params, x: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        """Return y for the next steps x, one or more, which see all that came before, and the new carry.

        Raises   ``ValueError`` for self-attention that is not causal, for a carry of another block or batch, and for more steps
                 than it has room for.
        """
        names = ("self_attn", "multihead_attn") if self.multihead_attn else ("self_attn",)
        if not isinstance(carry, dict) or carry.keys() != {*names}:
            rule = f"carry must be a dict with the keys {', '.join(names)}, as init_carry makes it"
            raise value_error(self.label, rule, describe(carry))
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
