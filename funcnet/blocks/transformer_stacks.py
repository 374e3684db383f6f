"""Transformer stacks: blocks in series which all see the same masks and memory, and torch.nn's forms of them.

    xᵢ = blockᵢ(xᵢ₋₁, c),   y = N xₙ                  c the masks, and a decoder's memory

Sequences are (N, length, embed_dim). gx comes back through the blocks, gc is the sum over all of them.
"""

from typing import Any

import torch
from torch import Tensor

from funcnet.blocks.encoder_decoder import EncoderDecoder
from funcnet.blocks.transformer_block import Carry, TransformerBlock
from funcnet.blocks.transformer_presets import transformer_decoder_block, transformer_encoder_block
from funcnet.combinator import errors_at
from funcnet.combinators.constants import serial_with_constants
from funcnet.combinators.sequential import Serial
from funcnet.contract import Params
from funcnet.errors import MANY, adds_location, describe, is_whole, value_error
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
        params: Params | None = None,
        memory: Any = None,
        dtype: torch.dtype | None = None,
        device: Any = None,
    ) -> tuple[Carry, ...]:
        """Return a carry for ``batch`` sequences of up to ``max_length`` steps, as ``TransformerBlock.init_carry``."""
        blocks, kind = self._blocks(), {"dtype": dtype, "device": device}
        made: list[Carry] = []
        each = [None] * len(blocks) if params is None else self._each(params)
        with errors_at(self, "layers"), errors_at(self.layers[0], lambda: len(made)):
            for block, p in zip(blocks, each, strict=True):
                made.append(block.init_carry(batch, max_length, params=p, memory=memory, **kind))
        return tuple(made)

    def decode(self, params: Params, x: Tensor, carry: tuple[Carry, ...]) -> tuple[Tensor, tuple[Carry, ...]]:
        """Return y for the next steps x, one or more, which see all that came before, and the new carry.

        Raises   ``ValueError`` for self-attention that is not causal, for a carry of another stack or batch, and for more steps
                 than it has room for.
        """
        blocks = self._blocks()
        after: list[Carry] = []
        if not isinstance(carry, tuple) or len(carry) != len(blocks):
            rule = f"carry must be a tuple of {len(blocks)}, one entry per block, as init_carry makes it"
            raise value_error(self.label, rule, describe(carry))
        each = self._each(params)
        with errors_at(self, "layers"), errors_at(self.layers[0], lambda: len(after)):
            for block, p, one in zip(blocks, each, carry, strict=True):
                x, later = block.decode(p, x, one)
                after.append(later)
        with errors_at(self, "norm"):
            return (self.layers[1](params["norm"], x) if self.layers[1:] else x), tuple(after)

    def _each(self, params: Params) -> Any:
        """Return the params of each block."""
        layers: Any = self.layers[0]
        return layers.entries(self.entries(params)[0])

    def _blocks(self) -> list[Any]:
        layers: Any = self.layers[0]
        blocks = [*layers]
        for block in blocks:
            if not hasattr(block, "decode"):
                raise value_error(self.label, "to decode, every block must have init_carry and decode", block)
        return blocks

    __repr__ = Value.__repr__


@adds_location("transformer_encoder")
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


@adds_location("transformer_decoder")
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


@adds_location("transformer")
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

    x is (source, target), with ``source_mask``, ``target_mask`` and ``memory_mask`` after it, or the first of them. Sources of
    several lengths need ``source_mask``, of which ``padding_mask`` makes the right form; the decoder sees of the encoded source
    what the encoder sees, or what ``memory_mask`` shows. ``decode`` writes a target step by step, with a carry
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
