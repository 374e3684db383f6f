"""Padding of convolutions: numbers, pairs and words, for all axes or for each.

A number pads both ends of an axis; a pair (before, after) pads each end by its own number. "valid" is 0, "same" keeps the length
for stride 1, and "causal" pads only before x.
"""

from typing import Any

from funcnet.errors import MOST, fields_error, is_whole, valid_if
from funcnet.layers.conv.window import Window, each

Pad = int | str | tuple[int, int]
"""The padding of one axis: a number for both ends, a pair (before, after), or ``"same"``, ``"valid"`` or ``"causal"``."""

_WORDS = ("same", "valid", "causal")


def _is_pad(entry: Any) -> bool:
    pair = entry if isinstance(entry, tuple) and len(entry) == 2 else (entry,)
    return entry in _WORDS or all(is_whole(n) and n >= 0 for n in pair)


_RULE = 'a whole number of at least 0, "same", "valid" or "causal" (in a tuple also a pair (before, after))'
padding_rule = valid_if(_is_pad, _RULE, several=True, most=MOST)
"""Validate a padding: a number or a word for all axes, or a tuple with a number, a pair or a word for each."""


def _ends(pad: Pad, reach: int) -> tuple[int, int]:
    """Return the number of elements added before and after x along one axis."""
    if isinstance(pad, str):
        total = 0 if pad == "valid" else reach - 1
        before = total if pad == "causal" else total // 2
        return before, total - before
    return pad if isinstance(pad, tuple) else (pad, pad)


def padding_of(layer: Any) -> Window:
    """Return the window of a convolution, with its padding as numbers."""
    kernel, stride, dilation, pads = (
        each(option, layer.axes) for option in (layer.kernel_size, layer.stride, layer.dilation, layer.padding)
    )
    if any(pad == "same" and s != 1 for pad, s in zip(pads, stride, strict=True)):
        raise fields_error(layer, 'padding="same" must have stride 1', "stride")
    window = Window(kernel, stride, dilation, (), ())
    before, after = zip(*map(_ends, pads, window.reach()), strict=True)
    return window._replace(before=before, after=after)
