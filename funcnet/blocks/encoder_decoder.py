"""Encoder and decoder: a net of two sequences, the source and the target.

    m = encoder(source),   y = decoder(target, m)

Sequences are (N, length, embed_dim). The gradient of m, which the decoder gives, goes back through the encoder.
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
    """An encoder of the source, and a decoder of the target that sees what the encoder makes of it; made by ``transformer``.

        m = encoder(source),  y = decoder(target, m)
        gtarget, gm = decoder's vjp of gy,  gx = (encoder's vjp of gm, gtarget)

    Args:
        encoder: A layer of a tensor or of (source, mask).
        decoder: A layer of (target, memory), (target, memory, memory_mask) or (target, memory, memory_mask, mask).

    Shape:
        x (source, target), (source, target, source_mask), (source, target, source_mask, target_mask) or (source, target,
        source_mask, target_mask, memory_mask), source (N, steps, embed_dim), target (N, length, embed_dim) → y (N, length,
        embed_dim). Without ``memory_mask`` the decoder sees of m what the encoder sees of the source.

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
        """Return what ``decode`` starts with: keys and values of the encoded ``source``, which is a tensor or (source, mask)."""
        params, decoder = self.node_params(params), self._decoder()
        with errors_at(self, "encoder"):
            memory = self.encoder(params["encoder"], source)
        memory = (memory, *source[1:]) if isinstance(source, tuple) else memory
        with errors_at(self, "decoder"):
            return decoder.init_carry(batch, max_length, params=params["decoder"], memory=memory, dtype=dtype, device=device)

    def decode(self, params: Params, x: Tensor, carry: Any) -> tuple[Tensor, Any]:
        """Return y for the next steps x of the target, which see all that came before and the source, and the new carry."""
        with errors_at(self, "decoder"):
            found: tuple[Tensor, Any] = self._decoder().decode(self.node_params(params)["decoder"], x, carry)
        return found

    def _decoder(self) -> Any:
        if not hasattr(self.decoder, "decode"):
            raise value_error(self.label, "to decode, the decoder must have init_carry and decode", self.decoder)
        return self.decoder
