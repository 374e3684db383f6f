"""Packing: sequences of several lengths in one tensor, with padding or without; pure functions on data.

``pack_padded`` and ``pad_packed`` are inverses and transposes of each other: the gradient of one is the other applied to the
gradient of its output. Recurrent nets take padded sequences and their lengths directly.

``lengths`` (N,) are the numbers of steps of the sequences. Padded sequences are (T, N, ...), or (N, T, ...) with ``batch_first``.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from funcnet.errors import MOST, describe, is_number, is_whole, value_error

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def _as_lengths(who: str, lengths: Tensor | Sequence[int], longest: int | None, count: int | None = None) -> Tensor:
    limit = "" if longest is None else f" to {longest}, the number of steps"
    try:
        counts = torch.as_tensor(lengths)
    except (TypeError, ValueError, RuntimeError):
        raise value_error(who, f"lengths must be whole numbers, one for each sequence, from 0{limit}", lengths) from None
    if counts.is_meta or counts.is_nested or counts.layout is not torch.strided:
        rule = "lengths must be a dense tensor of numbers: the shape of the result depends on them"
        raise value_error(who, rule, f"{describe(counts)} on {counts.device}")
    integers = counts.dim() == 1 and (counts.dtype in _INTEGERS or not counts.numel())
    if not integers or bool((counts < 0).any()) or (longest is not None and bool((counts > longest).any())):
        raise value_error(who, f"lengths must be whole numbers, one for each sequence, from 0{limit}", str(counts.tolist()))
    if count is not None and len(counts) != count:
        raise value_error(who, f"lengths must be whole numbers, one for each of {count} sequences", str(counts.tolist()))
    return counts


def _with_steps_first(who: str, x: Tensor, batch_first: bool) -> Tensor:
    """Return x with the axis of steps first, after checking that it has axes of steps and sequences."""
    _require_flag(who, batch_first)
    if not _is_dense(x) or x.dim() < 2:
        raise value_error(who, "x must be a dense tensor with the axes of steps and sequences", x)
    return x.transpose(0, 1) if batch_first else x


def _is_dense(x: Any) -> bool:
    return isinstance(x, Tensor) and not x.is_nested and x.layout is torch.strided


def _require_flag(who: str, batch_first: object) -> None:
    if not isinstance(batch_first, bool):
        raise value_error(who, "batch_first must be True or False", batch_first)


def pad_sequence(sequences: Sequence[Tensor], *, batch_first: bool = False, padding_value: float = 0.0) -> Tensor:
    """Stack sequences of several lengths into one tensor, padded at their ends.

    Args:
        sequences: Tensors (steps, ...) that differ only in their first axis.
        batch_first: Whether the result is (N, T, ...) instead of (T, N, ...).
        padding_value: The number that fills the padding.

    Returns:
        A tensor (T, N, ...), where T is the length of the longest sequence.

    Raises:
        ValueError: If there are no sequences, or they differ in more than the first axis.

    References:
        ``torch.nn.utils.rnn.pad_sequence``.

    >>> pad_sequence([torch.ones(2), torch.ones(1)]).tolist()
    [[1.0, 1.0], [1.0, 0.0]]
    """
    if not is_number(padding_value) and not isinstance(padding_value, float):  # infinity is allowed
        raise value_error("pad_sequence", "padding_value must be a number", repr(padding_value))
    _require_flag("pad_sequence", batch_first)
    padding_value = padding_value if isinstance(padding_value, int) else float(padding_value)
    given = isinstance(sequences, (tuple, list)) and sequences and all(map(_is_dense, sequences))
    kinds = {(one.shape[1:], one.device) for one in sequences if one.dim()} if given else set()
    if len(kinds) != 1 or not all(one.dim() for one in sequences):
        rule = "sequences must be one or more dense tensors that differ only in their first axis"
        raise value_error("pad_sequence", rule, sequences)
    steps = max(len(one) for one in sequences)
    padded = [torch.cat((one, one.new_full((steps - len(one), *one.shape[1:]), padding_value))) for one in sequences]
    return torch.stack(padded, 0 if batch_first else 1)


def unpad_sequence(x: Tensor, lengths: Tensor | Sequence[int], *, batch_first: bool = False) -> list[Tensor]:
    """Return the sequences of a padded tensor without their padding: the inverse of ``pad_sequence``.

    Args:
        x: Padded sequences (T, N, ...).
        lengths: The number of steps of each sequence, (N,).
        batch_first: Whether x is (N, T, ...) instead of (T, N, ...).

    Returns:
        A list of N tensors (steps, ...).

    Raises:
        ValueError: If ``lengths`` are not whole numbers from 0 to T, one per sequence.

    >>> unpad_sequence(torch.tensor([[1.0, 3.0], [2.0, 0.0]]), [2, 1])
    [tensor([1., 2.]), tensor([3.])]
    """
    rows = _with_steps_first("unpad_sequence", x, batch_first).transpose(0, 1)
    counts = _as_lengths("unpad_sequence", lengths, rows.shape[1], len(rows)).tolist()
    return [row[:count] for row, count in zip(rows, counts, strict=True)]


def pack_padded(x: Tensor, lengths: Tensor | Sequence[int], *, batch_first: bool = False) -> Tensor:
    """Return padded sequences without the padding, as rows: all of step 0, then all of step 1, and so on.

    For decreasing lengths this is the ``data`` of ``torch.nn.utils.rnn.pack_padded_sequence``. Other lengths are not sorted.

    Args:
        x: Padded sequences (T, N, ...).
        lengths: The number of steps of each sequence, (N,).
        batch_first: Whether x is (N, T, ...) instead of (T, N, ...).

    Returns:
        A tensor (Σ lengths, ...).

    Raises:
        ValueError: If ``lengths`` are not whole numbers from 0 to T, one per sequence.

    >>> pack_padded(torch.tensor([[1.0, 3.0], [2.0, 0.0]]), [2, 1])
    tensor([1., 3., 2.])
    """
    x = _with_steps_first("pack_padded", x, batch_first)
    return x[_step_mask("pack_padded", lengths, len(x), x.shape[1]).to(x.device)]


def pad_packed(
    data: Tensor, lengths: Tensor | Sequence[int], *, batch_first: bool = False, total_length: int | None = None
) -> Tensor:
    """Return packed rows as padded sequences, with zeros for the padding: the inverse of ``pack_padded``.

    Args:
        data: The rows from ``pack_padded``, (Σ lengths, ...).
        lengths: The number of steps of each sequence, (N,).
        batch_first: Whether the result is (N, T, ...) instead of (T, N, ...).
        total_length: T, at least the longest length; by default the longest.

    Returns:
        A tensor (T, N, ...).

    Raises:
        ValueError: If ``lengths`` are not whole numbers from 0 to T, or do not add up to the number of rows.

    >>> pad_packed(torch.tensor([1.0, 3.0, 2.0]), [2, 1])
    tensor([[1., 3.],
            [2., 0.]])
    """
    if total_length is not None and not (is_whole(total_length) and 0 <= total_length <= MOST):
        raise value_error("pad_packed", "total_length must be a whole number from 0 to below 2**31, or None", repr(total_length))
    _require_flag("pad_packed", batch_first)
    if not _is_dense(data) or not data.dim():
        raise value_error("pad_packed", "data must be a dense tensor with a row for each step", data)
    counts = _as_lengths("pad_packed", lengths, total_length)
    total = sum(counts.tolist())  # Python's numbers do not wrap around
    if total != len(data):
        raise value_error("pad_packed", f"data must have a row for each of {total} steps", data)
    mask = _step_mask("pad_packed", counts, int(counts.max()) if total_length is None else total_length).to(data.device)
    where = mask.reshape(*mask.shape, *[1] * (data.dim() - 1))
    padded = data.new_zeros((*mask.shape, *data.shape[1:])).masked_scatter(where, data)
    return padded.transpose(0, 1) if batch_first else padded


def _step_mask(who: str, lengths: Tensor | Sequence[int], steps: int, count: int | None = None) -> Tensor:
    """Return a bool mask (T, N), True for the steps that are not padding."""
    return torch.arange(steps).unsqueeze(1) < _as_lengths(who, lengths, steps, count).cpu()
