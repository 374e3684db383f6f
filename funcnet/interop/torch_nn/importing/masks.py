"""Masks in code that calls attention: torch's convention (True where hidden) becomes funcnet's (True where allowed).

A mask that is an input of the net and is only passed to attention already follows funcnet's convention; ``visible`` marks its
``VisibleMask`` accordingly.
"""

from typing import Any

import torch

from funcnet.interop.torch_nn.importing.values import Node, Ref, UnsupportedError, precision, require_value
from funcnet.layers.attention.mask_layers import FullMask, JointMask, VisibleMask
from funcnet.layers.shape.casting import Cast

Mask = Node | None
"""A mask in funcnet's convention, or ``None``."""


def as_mask(mask: Ref | Node, kind: str, num_heads: int | None = None) -> Node:
    """Return the node that converts a torch.nn mask of a kind, "padding" or "attention", to funcnet's convention."""
    mask = require_value("a mask", mask)
    if isinstance(mask.numbers, torch.dtype) and mask.numbers.is_floating_point:  # such as torch.full(size, -math.inf)
        mask = Node(Cast(precision()), (mask,))
    return Node(VisibleMask(kind, num_heads), (mask,))


def joint_mask(attention: Any, padding: Any, is_causal: Any, num_heads: int | None) -> Mask:
    """Combine an attention mask and a padding mask of torch.nn; ``is_causal`` only describes the first.

    ``is_causal=True`` without a mask is an error, as in torch.nn.
    """
    if attention is None and is_causal not in (None, False):
        raise UnsupportedError("is_causal must come with the attention mask that it describes, as in torch.nn")
    masks = [as_mask(attention, "attention", num_heads)] if attention is not None else []
    masks += [as_mask(padding, "padding")] if padding is not None else []
    return Node(JointMask(), tuple(masks)) if len(masks) == 2 else masks[0] if masks else None


def full_mask(mask: Mask) -> Node:
    """Return a mask that hides nothing, with the shape and dtype of another."""
    return Node(FullMask(), (require_value("a mask", mask),))


def up_to_last(*masks: Mask) -> list[Node]:
    """Return the masks up to the last one that is given, with masks that hide nothing in the gaps."""
    present = [i for i, mask in enumerate(masks) if mask is not None]
    last = present[-1] if present else -1
    return [full_mask(masks[last]) if mask is None else mask for mask in masks[: last + 1]]
