"""Packing: sequences of several lengths in one tensor, with padding behind their ends or without it; pure functions on data.

``pack_padded`` and ``pad_packed`` are each other's inverse, and each other's transpose: the gradient of the one's input is the
other of its gradient. Recurrent nets take padded sequences and their lengths as they are.

``lengths`` (N,) are the steps of each sequence, whole numbers of at least 0. Padded sequences are (T, N, ...), with
``batch_first`` (N, T, ...).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from funcnet.errors import MOST, describe, is_number, is_whole, value_error

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def _as_lengths(who: str, lengths: Tensor | Sequence[int], longest: int | None, count: int | None = None) -> Tensor:
    limit = "" if longest is None else f" to {longest}, the steps there are"
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
    """Return x, which must be a tensor with the axes of steps and sequences, the steps first."""
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
    """Stack ``sequences`` (steps, ...) of several lengths into (T, N, ...), with ``padding_value`` behind their ends.

    As ``torch.nn.utils.rnn.pad_sequence``.

    >>> pad_sequence([torch.ones(2), torch.ones(1)]).tolist()
    [[1.0, 1.0], [1.0, 0.0]]

    Raises   ``ValueError`` for no sequences, for shapes that differ in more than the first axis, and for a ``padding_value`` that
             is no number.
    """
    if not is_number(padding_value) and not isinstance(padding_value, float):  # infinite ones too
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
    """Return the sequences of a padded x without their padding, as a list of N: the way back from ``pad_sequence``.

    Raises   ``ValueError`` for lengths that are not whole numbers from 0 to T, one for each sequence.
    """
    rows = _with_steps_first("unpad_sequence", x, batch_first).transpose(0, 1)
    counts = _as_lengths("unpad_sequence", lengths, rows.shape[1], len(rows)).tolist()
    return [row[:count] for row, count in zip(rows, counts, strict=True)]


def pack_padded(x: Tensor, lengths: Tensor | Sequence[int], *, batch_first: bool = False) -> Tensor:
    """Return the steps of a padded x that are no padding as rows (Σ lengths, ...): those of step 0, then of step 1, and so on.

    That is the ``data`` of ``torch.nn.utils.rnn.pack_padded_sequence`` where the lengths fall, without sorting where they do
    not.

    Raises   ``ValueError`` as ``unpad_sequence`` does.
    """
    x = _with_steps_first("pack_padded", x, batch_first)
    return x[_step_mask("pack_padded", lengths, len(x), x.shape[1]).to(x.device)]


def pad_packed(
    data: Tensor, lengths: Tensor | Sequence[int], *, batch_first: bool = False, total_length: int | None = None
) -> Tensor:
    """Return ``data`` (Σ lengths, ...), the rows from ``pack_padded``, to (T, N, ...) with zeros for padding.

    T is the longest, or ``total_length``.

    Raises   ``ValueError`` as ``unpad_sequence`` does, for a ``total_length`` that is no whole number, and for more or fewer rows
             than steps.
    """
    if total_length is not None and not (is_whole(total_length) and 0 <= total_length <= MOST):
        raise value_error("pad_packed", "total_length must be a whole number from 0 to below 2**31, or None", repr(total_length))
    _require_flag("pad_packed", batch_first)
    if not _is_dense(data) or not data.dim():
        raise value_error("pad_packed", "data must be a dense tensor with a row for each step", data)
    counts = _as_lengths("pad_packed", lengths, total_length)
    total = sum(counts.tolist())  # of Python's numbers, which do not wrap around
    if total != len(data):
        raise value_error("pad_packed", f"data must have a row for each of {total} steps", data)
    mask = _step_mask("pad_packed", counts, int(counts.max()) if total_length is None else total_length).to(data.device)
    where = mask.reshape(*mask.shape, *[1] * (data.dim() - 1))
    padded = data.new_zeros((*mask.shape, *data.shape[1:])).masked_scatter(where, data)
    return padded.transpose(0, 1) if batch_first else padded


def _step_mask(who: str, lengths: Tensor | Sequence[int], steps: int, count: int | None = None) -> Tensor:
    """Return a bool mask (T, N), True for the steps that are no padding."""
    return torch.arange(steps).unsqueeze(1) < _as_lengths(who, lengths, steps, count).cpu()
