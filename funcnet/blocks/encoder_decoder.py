"""Encoder and decoder: a net of two sequences, the source and the target.

Sequences are (N, length, embed_dim). The decoder's gradient of the memory m goes back through the encoder.
"""

from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet.blocks.wired import Forms, Wired
from funcnet.combinator import errors_at, layers_only
from funcnet.combinators.wiring import Names, Node
from funcnet.contract import Layer, Params
from funcnet.errors import value_error
from funcnet.value import frozen


@frozen
class EncoderDecoder(Wired):
    """An encoder of the source, and a decoder of the target that attends to the encoder's output; made by ``transformer``.

        m = encoder(source)              y  = decoder(target, m)
        gtarget, gm = decoder.vjp(gy)    gx = (encoder.vjp(gm), gtarget)

    Args:
        encoder: A layer that takes a tensor or (source, mask).
        decoder: A layer that takes (target, memory), (target, memory, memory_mask) or (target, memory, memory_mask, mask).

    Shape:
        (source, target), (source, target, source_mask), (source, target, source_mask, target_mask) or (source, target,
        source_mask, target_mask, memory_mask), source (N, steps, embed_dim), target (N, length, embed_dim) → y (N, length,
        embed_dim). Without ``memory_mask`` the decoder sees the steps of m that ``source_mask`` allows.

    Params:
        encoder: The params of the encoder.
        decoder: The params of the decoder.

    Cache:
        The caches of both, by name, and the number of masks.

    Raises:
        ValueError: If x is not one of these tuples. Errors of the encoder and the decoder name the layer.

    References:
        Vaswani et al. 2017, figure 1; ``torch.nn.Transformer``.
    """

    encoder: Layer = field(validator=layers_only)
    decoder: Layer = field(validator=layers_only)

    def forms(self) -> Forms:
        names = ("source", "target", "source_mask", "target_mask", "memory_mask")
        return names[:2], names[:3], names[:4], names

    def nodes(self, inputs: Names) -> list[Node]:
        encoder = ("encoder", self.encoder, ("source", *inputs[2:3]))
        of_memory = inputs[4:] or inputs[2:3]
        return [encoder, ("decoder", self.decoder, ("target", "encoder", *of_memory, *inputs[3:4]))]

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
        """Return the initial carry for ``decode``: room for the target, and the keys and values of the encoded source.

        Args:
            batch: Number of sequences; ``None`` without a batch axis.
            max_length: Number of steps of the target that the carry has room for.
            params: The params of the net.
            source: The source, a tensor or (source, mask).
            dtype: The dtype of keys and values; by default the dtype of the memory.
            device: The device of keys and values; by default the device of the memory.

        Returns:
            A carry for ``decode``.

        Raises:
            ValueError: If the decoder has no ``decode``.
        """
        params, decoder = self.node_params(params), self._require_decoder()
        with errors_at(self, "encoder"):
            memory = self.encoder(params["encoder"], source)
        memory = (memory, *source[1:]) if isinstance(source, tuple) else memory
        with errors_at(self, "decoder"):
            return decoder.init_carry(batch, max_length, params=params["decoder"], memory=memory, dtype=dtype, device=device)

    def decode(self, params: Params, x: Tensor, carry: Any) -> tuple[Tensor, Any]:
        """Return y for the next steps of the target, and the new carry.

        Args:
            params: The params of the net.
            x: One or more next steps (N, L, embed_dim). They see all steps before them and the source.
            carry: The carry from ``init_carry`` or the previous ``decode``.

        Returns:
            The pair of y (N, L, embed_dim) and the new carry.

        Raises:
            ValueError: If the decoder has no ``decode``, or the carry has no room for the steps.
        """
        with errors_at(self, "decoder"):
            found: tuple[Tensor, Any] = self._require_decoder().decode(self.node_params(params)["decoder"], x, carry)
        return found

    def _require_decoder(self) -> Any:
        if not hasattr(self.decoder, "decode"):
            raise value_error(self.label, "to decode, the decoder must have init_carry and decode", self.decoder)
        return self.decoder
