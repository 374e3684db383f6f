"""Aliasing: which tensors share memory, which may be written to, and which are plain data without a graph."""

from collections.abc import Sequence

import torch
from torch import Tensor

from funcnet.kernels.tracing import is_eager


def is_writable(x: Tensor) -> bool:
    """Return whether a tensor may be written to.

    Inference tensors outside of inference mode, negated views and lazy zeros may not.
    """
    return not (x.is_inference() and not torch.is_inference_mode_enabled()) and not x.is_neg() and not x._is_zerotensor()


def plain(x: Tensor) -> Tensor:
    """Return x detached, with lazy negation and lazy zeros materialized; x itself if it is already plain."""
    x = x.detach() if x.requires_grad or getattr(x, "_is_param", False) else x
    return x.clone() if x._is_zerotensor() else x.resolve_neg()


def without_graph(x: Tensor) -> Tensor:
    """Return ``plain(x)`` in eager mode; x itself in compiled code or under a transform of ``torch.func``."""
    return plain(x) if is_eager() else x


def overlapping(tensors: Sequence[Tensor]) -> set[int]:
    """Return the positions of tensors that share memory with another of them, or whose own elements share it.

    First only the ranges from the first to the last byte are compared, which takes 30 µs for 24 tensors. Tensors whose ranges
    overlap are then compared element by element, since ``x[::2]`` and ``x[1::2]`` do not share memory.
    """
    spans = sorted([(*_span(x), i) for i, x in enumerate(tensors) if x.numel() and not x.is_meta])
    found, end, last = {i for _, _, i in spans if not _is_apart(tensors[i])}, 0, -1
    for start, stop, i in spans:
        if start < end:
            found |= {i, last}
        if stop > end:
            end, last = stop, i
    return _sharing(tensors, sorted(found)) if found else found


def _span(x: Tensor) -> tuple[int, int]:
    start = x.data_ptr()
    return start, start + (sum([(n - 1) * step for n, step in zip(x.shape, x.stride(), strict=True)]) + 1) * x.element_size()


def _is_apart(x: Tensor) -> bool:
    """Return whether the strides rule out shared elements: each stride exceeds the span of all smaller ones."""
    length = 1
    for step, n in sorted([(step, n) for n, step in zip(x.shape, x.stride(), strict=True) if n > 1]):
        if step < length:
            return False
        length += step * (n - 1)
    return True


def _sharing(tensors: Sequence[Tensor], some: list[int]) -> set[int]:
    """Return the positions whose elements share memory with another element."""
    starts = [_addresses(tensors[i]) for i in some]
    ends = torch.cat([start + tensors[i].element_size() for start, i in zip(starts, some, strict=True)])
    owners = torch.cat([torch.full_like(start, i) for start, i in zip(starts, some, strict=True)])
    start, order = torch.cat(starts).sort()
    latest, owner = ends[order].cummax(0)
    hit = start[1:] < latest[:-1]
    return {*owners[order][1:][hit].tolist(), *owners[order][owner[:-1]][hit].tolist()}


def _addresses(x: Tensor) -> Tensor:
    """Return the address of each element, in bytes."""
    places = torch.full((), x.data_ptr(), dtype=torch.int64)
    for n, step in zip(x.shape, x.stride(), strict=True):
        places = places[..., None] + torch.arange(n) * (step * x.element_size())
    return places.flatten()
