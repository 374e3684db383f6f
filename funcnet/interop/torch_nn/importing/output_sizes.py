"""The ``output_size`` of a call: whole numbers, or the sizes of a tensor.

``output_size`` can be ``skip.size()``, ``skip.shape[-2:]`` or ``(h, w)``, where h and w are sizes of one tensor.
"""

from typing import Any

from funcnet.interop.torch_nn.importing.values import Node, Ref, Shape, Size, UnsupportedError


def whole_numbers_in(output_size: Any, axes: int) -> tuple[int, ...] | None:
    """Return the lengths in a numeric ``output_size``, without batch and channels, or ``None`` for sizes of a tensor."""
    if not isinstance(output_size, (list, tuple)) or not all(isinstance(n, int) for n in output_size):
        return None
    if len(output_size) not in (axes, axes + 2):
        rule = f"output_size must have {axes} entries, or {axes + 2} with batch and channels"
        raise UnsupportedError(f"{rule}, got {len(output_size)}")
    return tuple(output_size[-axes:])


def tensor_of_lengths(output_size: Any, axes: int) -> Ref | Node:
    """Return the tensor whose last sizes are ``output_size``; raise ``UnsupportedError`` for anything else."""
    if isinstance(output_size, Shape) and output_size.stop is None and output_size.start in (None, 0, 2, -axes):
        return output_size.of
    if isinstance(output_size, (list, tuple)) and len(output_size) in (axes, axes + 2):
        sizes = output_size[-axes:]
        first = sizes[0]
        if all(isinstance(n, Size) and n.of == first.of and n.axis in (2 + i, i - axes) for i, n in enumerate(sizes)):
            return first.of  # type: ignore[no-any-return]  # it is a Size
    raise UnsupportedError(f"output_size must be the last {axes} sizes of one tensor, such as skip.shape[-{axes}:]")
