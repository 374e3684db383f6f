"""Transformer stacks: blocks in series that share masks and memory, as in torch.nn.

Sequences are (N, length, embed_dim). The gradients of masks and memory are summed over the blocks.
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
    """Blocks in series, and a final norm; made by ``transformer_encoder`` or ``transformer_decoder``.

        xᵢ = blockᵢ(xᵢ₋₁, c)              y  = N xₙ             c the masks, and the memory of a decoder
        gᵢ₋₁, gcᵢ = blockᵢ.vjp(gᵢ)        gx = g₀,  gc = Σ gcᵢ

    Args:
        layers: The blocks in ``serial_with_constants``, then the norm, if any.
        names: ``("layers", "norm")``, or ``("layers",)`` without a norm.

    Shape:
        The shapes of the blocks: x (N, length, embed_dim), or a tuple of it and the inputs that all blocks share → y (N, length,
        embed_dim)

    Params:
        layers: A tuple with the params of each block.
        norm: The params of the final norm, if there is one.

    Cache:
        The caches of the layers.

    Raises:
        ValueError: If a block rejects its input; the error names the block.

    References:
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
        """Return the initial carries for ``decode``, one for each block.

        Args:
            batch: Number of sequences; ``None`` without a batch axis.
            max_length: Number of steps that the carries have room for.
            params: The params of the stack; needed only with a memory.
            memory: The memory, a tensor or (memory, mask), for decoder blocks.
            dtype: The dtype of keys and values; by default the dtype of the memory.
            device: The device of keys and values; by default the device of the memory.

        Returns:
            A tuple of the carries of the blocks.

        Raises:
            ValueError: If a block has no ``decode``, or a memory is missing or not used.
        """
        blocks, kind = self._blocks(), {"dtype": dtype, "device": device}
        made: list[Carry] = []
        each = [None] * len(blocks) if params is None else self._each(params)
        with errors_at(self, "layers"), errors_at(self.layers[0], lambda: len(made)):
            for block, p in zip(blocks, each, strict=True):
                made.append(block.init_carry(batch, max_length, params=p, memory=memory, **kind))
        return tuple(made)

    def decode(self, params: Params, x: Tensor, carry: tuple[Carry, ...]) -> tuple[Tensor, tuple[Carry, ...]]:
        """Return y for the next steps of a sequence, and the new carry.

        Args:
            params: The params of the stack.
            x: One or more next steps (N, L, embed_dim). They see all steps before them.
            carry: The carry from ``init_carry`` or the previous ``decode``.

        Returns:
            The pair of y (N, L, embed_dim) and the new carry.

        Raises:
            ValueError: If self-attention is not causal, or the carry belongs to another stack or batch, or has no room for the
                steps.
        """
        blocks = self._blocks()
        after: list[Carry] = []
        if not isinstance(carry, tuple) or len(carry) != len(blocks):
            rule = f"carry must be a tuple of {len(blocks)}, one entry per block, from init_carry"
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
    """Compose encoder blocks in series that share one mask: ``torch.nn.TransformerEncoder``.

        xᵢ = blockᵢ(xᵢ₋₁, mask)        y = N xₙ

    y is a tensor even if x is (x, mask), ready for a pooling layer or a ``Linear``. With ``is_causal=True`` it is the trunk of a
    language model, and ``decode`` runs it step by step. Params have the paths of torch.nn.

    Args:
        embed_dim: Number of features of x and y.
        num_heads: Number of heads of each block.
        num_layers: Number of blocks.
        hidden: Number of features within the mlp of each block; ``None`` for 4 embed_dim.
        final_norm: Whether to end with a norm, which pre-norm blocks need; torch.nn's encoder has none by default.
        block: Further arguments of ``transformer_encoder_block``.

    Shape:
        x (N, length, embed_dim), or (x, mask) with a mask (N, 1, 1, length) → y (N, length, embed_dim)

    Returns:
        A ``TransformerStack``.

    Raises:
        ValueError: If a number is below 1, or ``transformer_encoder_block`` rejects its arguments.
        TypeError: For unknown keyword arguments.

    References:
        Vaswani et al. 2017, figure 1, left.

    >>> from funcnet.layers.attention.masks import padding_mask
    >>> net = transformer_encoder(8, 2, num_layers=3)
    >>> net(net.init(0), (torch.ones(2, 5, 8), padding_mask(torch.tensor([5, 3]), 5))).shape
    torch.Size([2, 5, 8])
    """
    layer = transformer_encoder_block(embed_dim, num_heads, hidden, **block)
    return _stack_blocks("transformer_encoder", layer, "num_layers", num_layers, final_norm)


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
    """Compose decoder blocks in series that share memory and masks: ``torch.nn.TransformerDecoder``.

        xᵢ = blockᵢ(xᵢ₋₁, memory, masks)        y = N xₙ

    ``decode`` runs it step by step, with a carry from ``init_carry``. Params have the paths of torch.nn.

    Args:
        embed_dim: Number of features of x and y.
        num_heads: Number of heads of each block.
        num_layers: Number of blocks.
        hidden: Number of features within the mlp of each block; ``None`` for 4 embed_dim.
        final_norm: Whether to end with a norm, which pre-norm blocks need.
        block: Further arguments of ``transformer_decoder_block``.

    Shape:
        (x, memory), (x, memory, memory_mask) or (x, memory, memory_mask, mask), x (N, length, embed_dim), memory (N, steps,
        memory_dim), memory_mask (N, 1, 1, steps), mask (N, 1, 1, length) → y (N, length, embed_dim)

    Returns:
        A ``TransformerStack``.

    Raises:
        ValueError: If a number is below 1, or ``transformer_decoder_block`` rejects its arguments.
        TypeError: For unknown keyword arguments.

    References:
        Vaswani et al. 2017, figure 1, right.

    >>> net = transformer_decoder(8, 2, num_layers=2)
    >>> params, memory, x = net.init(0), torch.ones(1, 3, 8), torch.ones(1, 5, 8)
    >>> carry = net.init_carry(1, max_length=5, params=params, memory=memory)
    >>> y, carry = net.decode(params, x[:, :1], carry)
    >>> torch.allclose(y, net(params, (x, memory))[:, :1], atol=1e-6)
    True
    """
    layer = transformer_decoder_block(embed_dim, num_heads, hidden, **block)
    return _stack_blocks("transformer_decoder", layer, "num_layers", num_layers, final_norm)


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

        m = encoder(source)        y = decoder(target, m)

    Sources of several lengths need a ``source_mask`` from ``padding_mask``. It also applies to the encoded source in the decoder,
    unless there is a ``memory_mask``. ``decode`` computes a target step by step, with a carry from ``init_carry``. Params have
    the paths of torch.nn: ``encoder.layers.0.self_attn...``.

    Args:
        embed_dim: Number of features of source, target and y.
        num_heads: Number of heads of each block.
        num_encoder_layers: Number of blocks of the encoder.
        num_decoder_layers: Number of blocks of the decoder.
        hidden: Number of features within the mlp of each block; ``None`` for 4 embed_dim.
        final_norm: Whether encoder and decoder end with a norm.
        is_causal: Whether a step of the target sees only itself and earlier steps.
        block: Further arguments of ``transformer_encoder_block``, for all blocks.

    Shape:
        (source, target), optionally followed by source_mask, then target_mask, then memory_mask, with source (N, steps,
        embed_dim), target (N, length, embed_dim), source_mask (N, 1, 1, steps), target_mask (N, 1, 1, length) → y (N, length,
        embed_dim)

    Returns:
        An ``EncoderDecoder``.

    Raises:
        ValueError: If a number is below 1, or ``transformer_encoder_block`` rejects its arguments.
        TypeError: For unknown keyword arguments.

    References:
        Vaswani et al. 2017, figure 1.

    >>> from funcnet.layers.attention.masks import padding_mask
    >>> net = transformer(8, 2, 1, 1)
    >>> source, target = torch.ones(2, 5, 8), torch.ones(2, 4, 8)
    >>> net(net.init(0), (source, target, padding_mask(torch.tensor([5, 3]), 5))).shape
    torch.Size([2, 4, 8])
    """
    first = transformer_encoder_block(embed_dim, num_heads, hidden, **block)
    second = transformer_decoder_block(embed_dim, num_heads, hidden, is_causal=is_causal, **block)
    encoder = _stack_blocks("transformer", first, "num_encoder_layers", num_encoder_layers, final_norm)
    return EncoderDecoder(encoder, _stack_blocks("transformer", second, "num_decoder_layers", num_decoder_layers, final_norm))


def _stack_blocks(who: str, block: TransformerBlock, name: str, count: int, final_norm: bool) -> TransformerStack:
    if not is_whole(count) or not 1 <= count <= MANY:
        raise value_error(who, f"{name} must be a whole number of at least 1, and of at most {MANY}", repr(count))
    if not isinstance(final_norm, bool):
        raise value_error(who, "final_norm must be True or False", repr(final_norm))
    layers = serial_with_constants(*[block] * count)
    return TransformerStack((layers, block.norm1), ("layers", "norm")) if final_norm else TransformerStack((layers,), ("layers",))
