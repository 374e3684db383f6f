"""Transformer blocks: attention and an mlp, each with a norm and a shortcut; the layers have torch.nn's names.

Masks are True where a query may see a key, as in ``MultiHeadAttention``. gx and the gradient of a memory are sums over all paths
to y.
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
    """The layers of a transformer block, by torch.nn's names; made by ``transformer_encoder_block`` or its decoder counterpart.

        pre-norm   h = x + dropout1(self_attn(norm1 x))        y = h + M(norm2 h)
        post-norm  h = norm1(x + dropout1(self_attn x))        y = norm2(h + M h)
        M h        = dropout2(linear2(dropout(activation(linear1 h))))
        gx         = gh + (the vjp of norm1, self_attn and dropout1)(gh) with pre-norm, and gh from gy likewise

    With ``multihead_attn``, which attends to a memory, and ``norm3``, there are three steps: g = h +
    dropout2(multihead_attn(norm2 h, memory)), and the mlp with ``norm3`` and ``dropout3``.

    Args:
        norm1: Norm of the self-attention.
        self_attn: Self-attention, a layer that takes a tensor or (x, mask).
        dropout1: Layer after ``self_attn``; ``None`` to omit it.
        norm2: Norm of the attention to the memory, or of the mlp without a memory.
        multihead_attn: Attention to the memory, a layer that takes (x, memory, memory) or (x, memory, memory, mask); ``None``
            without a memory.
        dropout2: Layer after ``multihead_attn``, or after ``linear2`` without a memory; ``None`` to omit it.
        norm3: Norm of the mlp with a memory.
        linear1: First layer of the mlp.
        activation: Layer after ``linear1``.
        dropout: Layer after ``activation``; ``None`` to omit it.
        linear2: Last layer of the mlp.
        dropout3: Layer after ``linear2`` with a memory; ``None`` to omit it.
        norm_first: Whether norms come before their layers (pre-norm) instead of after the sums (post-norm).

    Shape:
        x (N, length, embed_dim) or (x, mask) → y (N, length, embed_dim); with a memory (x, memory), (x, memory, memory_mask) or
        (x, memory, memory_mask, mask). Masks broadcast to (N, heads, queries, keys).

    Params:
        The params of the layers, in a dict by name.

    Cache:
        The caches of the layers, in a dict by name, and the number of masks.

    Raises:
        ValueError: If x does not have these entries, or only one of ``norm3`` and ``multihead_attn`` is given. Errors of a layer
            name it.

    References:
        Vaswani et al. 2017, section 3.1; Xiong et al. 2020 for pre-norm.
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
            raise value_error(self.label, "dropout3 requires multihead_attn; without it, dropout2 is the last", self.dropout3)
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
        """Return the layers of each branch by name, with their inputs other than the value on the branch."""
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
        """Return the initial carry for ``decode``: room for ``max_length`` steps, and the keys and values of the memory.

        Args:
            batch: Number of sequences; ``None`` without a batch axis.
            max_length: Number of steps that the carry has room for.
            params: The params of the block; needed only with a memory.
            memory: The memory, a tensor or (memory, mask), for a block with ``multihead_attn``.
            dtype: The dtype of keys and values; by default the dtype of the memory.
            device: The device of keys and values; by default the device of the memory.

        Returns:
            A dict of the carries of the attentions, by name.

        Raises:
            ValueError: If the attention has no ``decode``, or a memory is missing, or given to a block without
                ``multihead_attn``.
        """
        if (memory is None) != (self.multihead_attn is None) or (memory is not None and params is None):
            rule = "init_carry must be given params and memory for a block with multihead_attn, and only then"
            raise value_error(self.label, rule, memory)
        carry = {}
        if memory is not None:
            memory, *mask = memory if isinstance(memory, tuple) else (memory,)
            dtype, device = dtype or memory.dtype, device or memory.device
            carry["multihead_attn"] = self._require_decoder("multihead_attn").memory_carry(
                self.node_params(params)["multihead_attn"], memory, *mask
            )
        own = self._require_decoder("self_attn").init_carry(batch, max_length, dtype=dtype, device=device)
        return {"self_attn": own, **carry}

    def decode(self, params: Params, x: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        """Return y for the next steps of a sequence, and the new carry.

        Args:
            params: The params of the block.
            x: One or more next steps (N, L, embed_dim). They see all steps before them.
            carry: The carry from ``init_carry`` or the previous ``decode``.

        Returns:
            The pair of y (N, L, embed_dim) and the new carry.

        Raises:
            ValueError: If self-attention is not causal, or the carry belongs to another block or batch, or has no room for the
                steps.
        """
        names = ("self_attn", "multihead_attn") if self.multihead_attn else ("self_attn",)
        if not isinstance(carry, dict) or carry.keys() != {*names}:
            rule = f"carry must be a dict with the keys {', '.join(names)}, from init_carry"
            raise value_error(self.label, rule, describe(carry))
        after = dict(carry)

        def call(name: str, layer: Any, p: Params, entry: Any) -> Any:
            if name not in carry:
                return layer(p, entry)
            y, after[name] = self._require_decoder(name).decode(p, entry[0] if isinstance(entry, tuple) else entry, carry[name])
            return y

        graph = self._graphs[0]
        y: Tensor = graph.evaluate(self.node_params(params), (x, None) if graph.inputs[1:] else x, call)
        return y, after

    def _require_decoder(self, name: str) -> Any:
        """Return an attention, after checking that it can decode."""
        attention = getattr(self, name)
        if not hasattr(attention, "decode"):
            raise value_error(
                self.label, f"to decode, {name} must have init_carry and decode, like MultiHeadAttention", attention
            )
        return attention
