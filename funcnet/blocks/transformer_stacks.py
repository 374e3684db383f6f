"""Transformer stacks: blocks in series which all see the same masks and memory, and encoder and decoder together.

    stack         xᵢ = blockᵢ(xᵢ₋₁, c),   y = N xₙ                  c the masks, and a decoder's memory
    transformer   m = encoder(source),   y = decoder(target, m)

Sequences are (N, length, embed_dim). gx comes back through the blocks, gc is the sum over all of them.
"""

from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet.blocks.transformer_block import Carry, TransformerBlock
from funcnet.blocks.transformer_presets import transformer_decoder_block, transformer_encoder_block
from funcnet.blocks.wired import Forms, Wired
from funcnet.combinator import layers_only
from funcnet.combinators.constants import serial_with_constants
from funcnet.combinators.dag import Names, Node
from funcnet.combinators.sequential import Serial
from funcnet.contract import Layer, Params
from funcnet.errors import MANY, is_whole, value_error
from funcnet.value import Value, frozen


@frozen
class TransformerStack(Serial):
    """Blocks in series, and a norm at the end; made by ``transformer_encoder`` and ``transformer_decoder``.

        xᵢ = blockᵢ(xᵢ₋₁, c),  y = N xₙ
        gᵢ₋₁, gcᵢ = blockᵢ's vjp of gᵢ,  gx = g₀,  gc = Σ gcᵢ

    Args:
        layers: The blocks in ``serial_with_constants``, and the norm, if there is one.
        names: ``("layers", "norm")``, or ``("layers",)`` without a norm.

    Shape:
        Those of the blocks: x (N, length, embed_dim) or a tuple of it and what every block sees.

    Params:
        ``layers``: a tuple, the params of each block; ``norm``.

    Cache:
        Those of the layers.

    Raises:
        ValueError: What the blocks raise, with a note that says which.

    Source:
        ``torch.nn.TransformerEncoder``, ``torch.nn.TransformerDecoder``.
    """

    label = "TransformerStack"

    def init_carry(
        self,
        batch: int | None,
        max_length: int,
        *,
        params: Params = None,
        memory: Any = None,
        dtype: torch.dtype | None = None,
        device: Any = None,
    ) -> tuple[Carry, ...]:
        """Return a carry for ``batch`` sequences of up to ``max_length`` steps, as ``TransformerBlock.init_carry``."""
        blocks, kind = self._blocks(), {"dtype": dtype, "device": device}
        each = [None] * len(blocks) if params is None else params["layers"]
        pairs = zip(blocks, each, strict=True)
        return tuple([block.init_carry(batch, max_length, params=p, memory=memory, **kind) for block, p in pairs])

    def decode(self, params: Params, x: Tensor, carry: tuple[Carry, ...]) -> tuple[Tensor, tuple[Carry, ...]]:
        """Return y for the next steps x, one or more, which see all that came before, and the new carry.

        Raises   ``ValueError`` for self-attention that is not causal, and for more steps than the carry has room for.
        """
        after, blocks = [], self._blocks()
        if not isinstance(carry, tuple) or len(carry) != len(blocks):
            raise value_error(self.label, f"carry must be a tuple of {len(blocks)}, as init_carry makes it", carry)
        for block, p, one in zip(blocks, params["layers"], carry, strict=True):
            x, later = block.decode(p, x, one)
            after.append(later)
        return (self.layers[1](params["norm"], x) if self.layers[1:] else x), tuple(after)

    def _blocks(self) -> list[Any]:
        layers: Any = self.layers[0]
        blocks = [*layers]
        for block in blocks:
            if not hasattr(block, "decode"):
                raise value_error(self.label, "to decode, every block must have init_carry and decode", block)
        return blocks

    __repr__ = Value.__repr__


@frozen
class EncoderDecoder(Wired):
    """An encoder of the source, and a decoder of the target that sees what the encoder makes of it; made by ``transformer``.

        m = encoder(source),  y = decoder(target, m)
        gtarget, gm = decoder's vjp of gy,  gx = (encoder's vjp of gm, gtarget)

    Args:
        encoder: A layer of a tensor or of (source, mask).
        decoder: A layer of (target, memory), (target, memory, memory_mask) or (target, memory, memory_mask, mask).

    Shape:
        x (source, target), (source, target, source_mask) or (source, target, source_mask, target_mask), source (N, steps,
        embed_dim), target (N, length, embed_dim) → y (N, length, embed_dim)

    Params:
        ``encoder`` and ``decoder``.

    Cache:
        Those of both, in a dict by name, and the number of masks.

    Raises:
        ValueError: For an x of other entries, and what the two raise, with a note.

    Source:
        Vaswani et al. 2017, figure 1; ``torch.nn.Transformer``.
    """

    encoder: Layer = field(validator=layers_only)
    decoder: Layer = field(validator=layers_only)

    def forms(self) -> Forms:
        names = ("source", "target", "source_mask", "target_mask")
        return names[:2], names[:3], names

    def nodes(self, inputs: Names) -> list[Node]:
        encoder = ("encoder", self.encoder, ("source", *inputs[2:3]))
        return [encoder, ("decoder", self.decoder, ("target", "encoder", *inputs[2:]))]

    def init_carry(
        self,
        batch: int | None,
        max_length: int,
        *,
        params: Params,
        source: Any,
        dtype: torch.dtype | None = None,
        device: Any = None,
    ) -> Any:
        """Return what ``decode`` starts with: keys and values of the encoded ``source``, which is a tensor or (source, mask)."""
        memory = self.encoder(params["encoder"], source)
        memory = (memory, *source[1:]) if isinstance(source, tuple) else memory
        decoder: Any = self.decoder
        return decoder.init_carry(batch, max_length, params=params["decoder"], memory=memory, dtype=dtype, device=device)

    def decode(self, params: Params, x: Tensor, carry: Any) -> tuple[Tensor, Any]:
        """Return y for the next steps x of the target, which see all that came before and the source, and the new carry."""
        decoder: Any = self.decoder
        found: tuple[Tensor, Any] = decoder.decode(params["decoder"], x, carry)
        return found


def transformer_encoder(
    embed_dim: int,
    num_heads: int,
    num_layers: int,
    hidden: int | None = None,
    *,
    final_norm: bool = True,
    **block: Any,
) -> TransformerStack:
    """Compose encoder blocks in series, which all see the same mask: ``torch.nn.TransformerEncoder``.

        xᵢ = blockᵢ(xᵢ₋₁, mask),  y = N xₙ

    x is a tensor, or (x, mask), and y a tensor, for a pool or a ``Linear`` that follows. With ``is_causal=True`` it is the trunk
    of a language model, and ``decode`` takes one step after the other. Params have the paths of torch.nn.

    Args:
        embed_dim: Features of x and y.
        num_heads: Number of heads of each block.
        num_layers: Number of blocks.
        hidden: Features within the mlp of each block, by default 4 embed_dim.
        final_norm: Whether a norm comes last, as blocks with ``norm_first`` need it; torch.nn's encoder has none by default.
        block: Further arguments of ``transformer_encoder_block``.

    Shape:
        x (N, length, embed_dim), or a pair of it and a mask (N, 1, 1, length) → y (N, length, embed_dim)

    Raises:
        ValueError: For numbers below 1, and what ``transformer_encoder_block`` raises.
        TypeError: For unknown arguments.

    >>> from funcnet.layers.attention.masks import padding_mask
    >>> net = transformer_encoder(8, 2, num_layers=3)
    >>> net(net.init(0), (torch.ones(2, 5, 8), padding_mask(torch.tensor([5, 3]), 5))).shape
    torch.Size([2, 5, 8])
    """
    layer = transformer_encoder_block(embed_dim, num_heads, hidden, **block)
    return _stacked("transformer_encoder", layer, "num_layers", num_layers, final_norm)


def transformer_decoder(
    embed_dim: int,
    num_heads: int,
    num_layers: int,
    hidden: int | None = None,
    *,
    final_norm: bool = True,
    **block: Any,
) -> TransformerStack:
    """Compose decoder blocks in series, which all see the same memory and masks: ``torch.nn.TransformerDecoder``.

        xᵢ = blockᵢ(xᵢ₋₁, memory, masks),  y = N xₙ

    x is (x, memory), (x, memory, memory_mask) or (x, memory, memory_mask, mask), and y a tensor. ``decode`` takes one step after
    the other, with a carry from ``init_carry``. Params have the paths of torch.nn.

    Args:
        embed_dim: As for ``transformer_encoder``.
        num_heads: As for ``transformer_encoder``.
        num_layers: As for ``transformer_encoder``.
        hidden: As for ``transformer_encoder``.
        final_norm: As for ``transformer_encoder``.
        block: Further arguments of ``transformer_decoder_block``.

    Shape:
        x (N, length, embed_dim), memory (N, steps, memory_dim), memory_mask (N, 1, 1, steps), mask (N, 1, 1, length)
        → y (N, length, embed_dim)

    Raises:
        ValueError: For numbers below 1, and what ``transformer_decoder_block`` raises.
        TypeError: For unknown arguments.

    >>> net = transformer_decoder(8, 2, num_layers=2)
    >>> params, memory, x = net.init(0), torch.ones(1, 3, 8), torch.ones(1, 5, 8)
    >>> carry = net.init_carry(1, max_length=5, params=params, memory=memory)
    >>> y, carry = net.decode(params, x[:, :1], carry)
    >>> torch.allclose(y, net(params, (x, memory))[:, :1], atol=1e-6)
    True
    """
    layer = transformer_decoder_block(embed_dim, num_heads, hidden, **block)
    return _stacked("transformer_decoder", layer, "num_layers", num_layers, final_norm)


def transformer(
    embed_dim: int,
    num_heads: int,
    num_encoder_layers: int,
    num_decoder_layers: int,
    hidden: int | None = None,
    *,
    final_norm: bool = True,
    is_causal: bool = True,
    **block: Any,
) -> EncoderDecoder:
    """Compose an encoder of a source and a decoder of a target: ``torch.nn.Transformer``.

        m = encoder(source),  y = decoder(target, m)

    x is (source, target), (source, target, source_mask) or (source, target, source_mask, target_mask). Sources of several lengths
    need ``source_mask``, of which ``padding_mask`` makes the right form. ``decode`` writes a target step by step, with a carry
    from ``init_carry``. Params have the paths of torch.nn: ``encoder.layers.0.self_attn...``.

    Args:
        embed_dim: Features of source, target and y.
        num_heads: Number of heads of each block.
        num_encoder_layers: Number of blocks of the encoder.
        num_decoder_layers: Number of blocks of the decoder.
        hidden: Features within the mlp of each block, by default 4 embed_dim.
        final_norm: Whether encoder and decoder end with a norm.
        is_causal: Whether a step of the target sees only those before it.
        block: Further arguments of ``transformer_encoder_block``, for all blocks.

    Shape:
        source (N, steps, embed_dim), target (N, length, embed_dim), source_mask (N, 1, 1, steps), target_mask (N, 1, 1, length)
        → y (N, length, embed_dim)

    Raises:
        ValueError: For numbers below 1, and what ``transformer_encoder_block`` raises.
        TypeError: For unknown arguments.

    Source:
        Vaswani et al. 2017, figure 1.

    >>> from funcnet.layers.attention.masks import padding_mask
    >>> net = transformer(8, 2, 1, 1)
    >>> source, target = torch.ones(2, 5, 8), torch.ones(2, 4, 8)
    >>> net(net.init(0), (source, target, padding_mask(torch.tensor([5, 3]), 5))).shape
    torch.Size([2, 4, 8])
    """
    first = transformer_encoder_block(embed_dim, num_heads, hidden, **block)
    second = transformer_decoder_block(embed_dim, num_heads, hidden, is_causal=is_causal, **block)
    encoder = _stacked("transformer", first, "num_encoder_layers", num_encoder_layers, final_norm)
    return EncoderDecoder(encoder, _stacked("transformer", second, "num_decoder_layers", num_decoder_layers, final_norm))


def _stacked(who: str, block: TransformerBlock, name: str, count: int, final_norm: bool) -> TransformerStack:
    if not is_whole(count) or not 1 <= count <= MANY:
        raise value_error(who, f"{name} must be a whole number of at least 1, and of at most {MANY}", repr(count))
    if not isinstance(final_norm, bool):
        raise value_error(who, "final_norm must be True or False", repr(final_norm))
    layers = serial_with_constants(*[block] * count)
    return TransformerStack((layers, block.norm1), ("layers", "norm")) if final_norm else TransformerStack((layers,), ("layers",))
