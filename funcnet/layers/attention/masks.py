"""Masks of attention: boolean tensors, True where a query may see a key.

    causal    i ≥ j                            query i of L sees key j of S, both counted from the first
    local     i - before ≤ j ≤ i + after
    padding   j < length                       for each row of the batch

Masks broadcast to (N, heads, L, S). ``combine_masks`` joins masks with a logical and.
"""

from typing import Any

import torch
from torch import Tensor

from funcnet.checks import Misfit
from funcnet.errors import MOST, describe, is_whole, value_error
from funcnet.kernels.tracing import is_plain


def causal_mask(length: int, keys: int | None = None, *, device: Any = None) -> Tensor:
    """Return the mask of causal attention: each query sees the keys up to its own step.

        y[i, j] = i ≥ j

    Args:
        length: Number of queries.
        keys: Number of keys; by default ``length``.
        device: The device of the mask.

    Returns:
        A bool tensor (length, keys).

    Raises:
        ValueError: If a length is not a whole number of at least 0.

    >>> causal_mask(2, 3).tolist()
    [[True, False, False], [True, True, False]]
    """
    length = _require_count("causal_mask", "length", length)
    keys = length if keys is None else _require_count("causal_mask", "keys", keys)
    return steps_mask(length, keys, (None, 0), _require_device("causal_mask", device))


def local_mask(length: int, keys: int, window: tuple[int | None, int | None], *, device: Any = None) -> Tensor:
    """Return the mask of local attention: each query sees the keys within a window of steps around it.

        y[i, j] = i - before ≤ j ≤ i + after

    Args:
        length: Number of queries.
        keys: Number of keys.
        window: The pair (before, after), numbers of steps before and after the query; ``None`` for no limit.
        device: The device of the mask.

    Returns:
        A bool tensor (length, keys).

    Raises:
        ValueError: If a length or an entry of the window is not a whole number of at least 0.

    >>> local_mask(3, 3, (1, 0)).tolist()
    [[True, False, False], [True, True, False], [False, True, True]]
    """
    if not isinstance(window, tuple) or len(window) != 2 or not all(n is None or _is_count(n) for n in window):
        raise value_error("local_mask", "window must be (before, after), whole numbers of at least 0 or None", repr(window))
    for name, n in zip(("before", "after"), window, strict=True):
        _require_count("local_mask", name, 0 if n is None else n)
    length, keys = _require_count("local_mask", "length", length), _require_count("local_mask", "keys", keys)
    return steps_mask(length, keys, window, _require_device("local_mask", device))


def _is_count(n: Any) -> bool:
    return is_whole(n) and bool(n >= 0)


def _require_count(who: str, name: str, n: Any) -> Any:
    """Return n, after checking that it is a whole number of at least 0."""
    if not _is_count(n) or n > MOST:
        rule = "below 2**31" if _is_count(n) else "a whole number of at least 0"
        raise value_error(who, f"{name} must be {rule}", repr(n))
    return n


def _require_device(who: str, device: Any) -> torch.device | None:
    try:
        return None if device is None else torch.device(device)
    except (RuntimeError, TypeError, ValueError):
        raise value_error(who, "device must be a torch.device, or the name of one", describe(device)) from None


def steps_mask(length: int, keys: int, window: tuple[int | None, int | None], device: Any) -> Tensor:
    """Return the mask of ``local_mask`` without validating the arguments."""
    before, after = window
    ahead = torch.arange(keys, device=device) - torch.arange(length, device=device).unsqueeze(1)
    mask = torch.ones_like(ahead, dtype=torch.bool) if before is None else ahead >= -before
    return mask if after is None else mask & (ahead <= after)


def padding_mask(lengths: Tensor, length: int) -> Tensor:
    """Return the mask that hides padding: the keys within the length of each row are visible.

        y[n, 0, 0, j] = j < lengths[n]

    The padding can hold any finite numbers. NaN spreads from it, as in torch, because 0 times NaN is NaN.

    Args:
        lengths: Length of each row, integers (N,).
        length: Number of keys.

    Returns:
        A bool tensor (N, 1, 1, length).

    Raises:
        ValueError: If ``lengths`` are not integers of at least 0.

    >>> padding_mask(torch.tensor([1, 3]), 3)[:, 0, 0].tolist()
    [[True, False, False], [True, True, True]]
    """
    length = _require_count("padding_mask", "length", length)
    integers = isinstance(lengths, Tensor) and lengths.dtype in (torch.int32, torch.int64)
    if not integers or lengths.layout is not torch.strided or (is_plain(lengths) and (lengths < 0).any()):
        shown = isinstance(lengths, Tensor) and lengths.layout is torch.strided and not lengths.is_meta
        got = repr(lengths.tolist()) if shown else describe(lengths)
        raise value_error("padding_mask", "lengths must be an int32 or int64 tensor, of at least 0", got)
    return (torch.arange(length, device=lengths.device) < lengths.unsqueeze(-1))[..., None, None, :]


def combine_masks(*masks: Tensor | None) -> Tensor | None:
    """Return the bool mask that is True where all masks are, broadcast together.

    Args:
        masks: Bool masks; ``None`` is True everywhere.

    Returns:
        A bool tensor, or ``None`` if every mask is ``None``.

    Raises:
        ValueError: If a mask is not a bool tensor.

    >>> combine_masks(causal_mask(2), torch.tensor([True, False]), None).tolist()
    [[True, False], [True, False]]
    """
    combined: Tensor | None = None
    for mask in masks:
        if mask is not None and (not isinstance(mask, Tensor) or mask.dtype is not torch.bool):
            raise value_error("combine_masks", "every mask must be a bool tensor, True where a query may see a key", mask)
        combined = mask if combined is None else combined if mask is None else combined & mask
    return combined


def broadcasts_to(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Return whether a tensor of this shape can be expanded to the target shape."""
    last = target[len(target) - len(shape) :]
    return len(shape) <= len(target) and all([n in (1, m) for n, m in zip(shape, last, strict=True)])  # noqa: C419


def require_mask(layer: Any, mask: Any, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Return the mask, after checking that it is bool or like ``like`` in dtype and device, and broadcasts to ``shape``."""
    valid = isinstance(mask, Tensor) and not mask.is_nested and mask.dtype in (torch.bool, like.dtype)
    if not valid or not broadcasts_to(mask.shape, shape):
        is_padding = len(shape) == 4 and getattr(mask, "shape", None) == (shape[0], shape[3])
        hint = "; a padding mask has the shape (N, 1, 1, S), True for visible keys: see padding_mask" if is_padding else ""
        rule = f"the mask must be bool or {like.dtype}, and broadcast to (..., heads, L, S), {shape}{hint}"
        raise value_error(layer, rule, mask)
    if mask.is_cpu is not like.is_cpu:
        raise Misfit
    return mask  # type: ignore[no-any-return]  # it is a tensor, or there is an error
