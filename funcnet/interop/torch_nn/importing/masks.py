"""Masks in code that calls attention: torch's, True for what is hidden, become ours, True for what may be seen.

A mask of the net itself, an input that code hands on to attention and uses for nothing else, has our meaning already:
``visible`` says so to its ``VisibleMask``.
"""

from typing import Any

import torch

from funcnet.interop.torch_nn.importing.values import Node, Ref, UnsupportedError, precision, require_value
from funcnet.layers.attention.mask_layers import FullMask, JointMask, VisibleMask
from funcnet.layers.shape.casting import Cast

Mask = Node | None
"""A mask with our meaning, or none."""


def as_mask(mask: Ref | Node, kind: str, num_heads: int | None = None) -> Node:
    """Return the node that translates a mask of torch.nn of a kind, "padding" or "attention"."""
    mask = require_value("a mask", mask)
    if isinstance(mask.numbers, torch.dtype) and mask.numbers.is_floating_point:  # as of torch.full(size, -math.inf)
        mask = Node(Cast(precision()), (mask,))
    return Node(VisibleMask(kind, num_heads), (mask,))


def joint_mask(attention: Any, padding: Any, is_causal: Any, num_heads: int | None) -> Mask:
    """Return what an attention mask and a padding mask of torch.nn show together; ``is_causal`` only says what the first is.

    Without a mask, torch.nn refuses ``is_causal=True``, and so does this.
    """
    if attention is None and is_causal not in (None, False):
        raise UnsupportedError("is_causal must come with the attention mask that it describes, as in torch.nn")
    masks = [as_mask(attention, "attention", num_heads)] if attention is not None else []
    masks += [as_mask(padding, "padding")] if padding is not None else []
    return Node(JointMask(), tuple(masks)) if len(masks) == 2 else masks[0] if masks else None


def full_mask(mask: Mask) -> Node:
    """Return a mask that hides nothing, made from another one."""
    return Node(FullMask(), (require_value("a mask", mask),))


def up_to_last(*masks: Mask) -> list[Node]:
    """Return the masks up to the last that there is, with masks that hide nothing in the gaps."""
    present = [i for i, mask in enumerate(masks) if mask is not None]
    last = present[-1] if present else -1
    return [full_mask(masks[last]) if mask is None else mask for mask in masks[: last + 1]]
