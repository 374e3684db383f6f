"""Attention of sequences of several lengths, stored one after the other without padding; each attends only to itself.

With 4 heads of 32, forward and backward, 16 sequences of 16 to 256 steps take 19 ms one by one, 30 ms padded to the longest with
a mask, and 257 ms as one attention of all rows. 64 sequences of 8 to 32 steps take 5.3, 3.1 and 50 ms.
"""

from collections.abc import Iterable
from typing import Any

import torch
from attrs import Factory, field, validators
from torch import Tensor

from funcnet.checks import Misfit, check_gy, require_arguments
from funcnet.contract import Cache, Grads, Layer, Params, Rng
from funcnet.errors import adds_location, flag, number, value_error
from funcnet.kernels.tracing import is_plain
from funcnet.layers.attention.dot_product import ScaledDotProductAttention, steps_around, window_of_steps
from funcnet.layers.pooling.segments import segments_of
from funcnet.value import frozen

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


@adds_location("VarlenAttention")
def _of_one(layer: Any) -> ScaledDotProductAttention:
    """Return the attention of one sequence."""
    return ScaledDotProductAttention(layer.is_causal, layer.scale, 0.0, layer.enable_gqa, layer.window)


@adds_location("VarlenAttention")
def _of_all(layer: Any) -> ScaledDotProductAttention:
    """Return the attention of all rows together; its mask handles causality and window."""
    return ScaledDotProductAttention(scale=layer.scale, enable_gqa=layer.enable_gqa)


@frozen
class VarlenAttention(Layer):
    """Attention within each of N sequences of several lengths, whose rows are stored one after the other.

        s  = scale q[i] k[i]ᵀ      p  = softmax(s)       y[i]  = p v[i]            q[i], k[i], v[i] the rows of sequence i
        gv[i] = pᵀ gy[i]           gp = gy[i] v[i]ᵀ      gs    = p ⊙ (gp - Σ gp ⊙ p)
        gq[i] = scale gs k[i]      gk[i] = scale gsᵀ q[i]

    Sequences are computed one by one if their lengths can be read from main memory. On other devices, in compiled code and under
    ``vmap``, one attention of all rows with a mask (T, S) is computed instead.

    A sequence can be empty. Rows after the last sequence give y = 0 and get no gradient. Lengths have no gradient.

    Args:
        is_causal: Whether a query sees only the keys of its sequence up to its own step.
        scale: Factor of the scores; ``None`` for 1 / √E.
        enable_gqa: Whether q can have a multiple of the heads of k and v.
        window: Largest distance in steps from a query to a key, or (before, after); ``None`` for no limit.

    Shape:
        (q, k, v, lengths) or (q, k, v, lengths, lengths of keys), with q (T, heads, E), k (S, heads, E), v (S, heads, Ev) and
        integer lengths (N,), the differences of torch's ``cu_seq_q`` → y (T, heads, Ev)

    Cache:
        The inputs, not copied, and the cache of the attention of each sequence, or of all rows.

    Raises:
        ValueError: If lengths are not integers with one axis, are negative, or add up to more than the number of rows.

    References:
        Dao 2023, ``flash_attn_varlen_func``.

    >>> q, v = torch.zeros(3, 1, 2), torch.tensor([[[1.0]], [[3.0]], [[8.0]]])
    >>> VarlenAttention()({}, (q, q, v, torch.tensor([2, 1]))).flatten()
    tensor([2., 2., 8.])
    """

    is_causal: bool = field(default=False, validator=flag)
    scale: float | None = field(default=None, validator=validators.optional(number()))
    enable_gqa: bool = field(default=False, validator=flag)
    window: int | tuple[int, int] | None = field(default=None, validator=window_of_steps)

    _one: ScaledDotProductAttention = field(init=False, eq=False, default=Factory(_of_one, takes_self=True))
    _all: ScaledDotProductAttention = field(init=False, eq=False, default=Factory(_of_all, takes_self=True))

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Tensor, Cache]:
        counts = self._counts(params, x)
        if is_plain(*counts):
            y, each = self._one_by_one(x, [count.tolist() for count in counts])
            return y, (x, {"each": each})
        entries = (*[_as_heads(one) for one in x[:3]], self._mask(x, counts))
        y, kept = self._all.apply({}, entries)
        return _as_rows(y), (x, {"all": kept})

    def vjp(self, params: Params, cache: Cache, gy: Tensor) -> tuple[Grads, tuple[Any, ...]]:
        x, kept = cache
        q, k, v, *lengths = x
        gy = check_gy(self, gy, (*q.shape[:2], v.shape[2]), q)
        if "all" in kept:
            gs = self._all.vjp({}, kept["all"], _as_heads(gy))[1][:3]
            return params, (*map(_as_rows, gs), *[None] * len(lengths))
        gys = _split_sequences(gy, [entries[0].shape[2] for entries, _ in kept["each"]])
        each = [self._one.vjp({}, one, _as_heads(g))[1] for one, g in zip(kept["each"], gys, strict=True)]
        gqkv = [_join_sequences([part[i] for part in each], one, one.shape[2]) for i, one in enumerate((q, k, v))]
        return params, (*gqkv, *[None] * len(lengths))

    def _one_by_one(self, x: Any, counts: list[list[int]]) -> tuple[Tensor, tuple[Cache, ...]]:
        """Return y and the caches of the sequences; their outputs are views of y."""
        q, k, v = x[:3]
        parts = zip(_split_sequences(q, counts[0]), _split_sequences(k, counts[-1]), _split_sequences(v, counts[-1]), strict=True)
        each = [self._one.apply({}, tuple([_as_heads(one) for one in part])) for part in parts]
        y = _join_sequences([one for one, _ in each], q, v.shape[2])
        ys, caches = _split_sequences(y, counts[0]), [cache for _, cache in each]
        kept = [(of, {**one, "y": _as_heads(y)} if "y" in one else one) for (of, one), y in zip(caches, ys, strict=True)]
        return y, tuple(kept)

    def _mask(self, x: Any, counts: list[Tensor]) -> Tensor:
        """Return a mask (T, S), True for the visible keys in the sequence of each row."""
        (i, step), (j, key) = (_locate_rows(one, lengths) for one, lengths in zip(x[:2], (counts[0], counts[-1]), strict=True))
        mask = (i.unsqueeze(1) == j) & (i.unsqueeze(1) < len(counts[0]))
        if self.window is None and not self.is_causal:
            return mask
        before, after = steps_around(self.window, self.is_causal)
        ahead = key - step.unsqueeze(1)
        mask = mask if before is None else mask & (ahead >= -before)
        return mask if after is None else mask & (ahead <= after)

    def _counts(self, params: Params, x: Any) -> list[Tensor]:
        """Return the lengths as int64: one tensor if queries and keys share it, else two."""
        require_arguments(self, params, x)
        if not x[0].is_cpu is x[1].is_cpu is x[2].is_cpu:
            raise Misfit
        if any(one.dim() != 1 or one.dtype not in _INTEGERS for one in x[3:]) or x[3].shape != x[-1].shape:
            raise value_error(self, "lengths must be integers with one axis, as many for keys as for queries", x[3])
        for rows, lengths in ((x[0], x[3]), (x[1], x[-1])):
            if is_plain(lengths) and ((lengths < 0).any() or lengths.sum() > len(rows)):
                rule = f"lengths must be at least 0, and add up to at most {len(rows)}, the number of rows"
                raise value_error(self, rule, str(lengths.tolist()))
        return [one.long() for one in x[3:]]

    def complaint(self, x: Any) -> str | None:
        if not isinstance(x, tuple) or len(x) not in (4, 5) or not all(isinstance(one, Tensor) for one in x):
            return "x must be a tuple (q, k, v, lengths) or (q, k, v, lengths, lengths of keys)"
        fits = all(one.dim() == 3 for one in x[:3]) and x[1].shape[:2] == x[2].shape[:2]
        return None if fits else "q (T, heads, E), k (S, heads, E) and v (S, heads, Ev) must fit each other"


def _as_heads(x: Tensor) -> Tensor:
    """Lay out rows (T, heads, E) for attention: (1, heads, T, E)."""
    return x.transpose(0, 1).unsqueeze(0)


def _as_rows(x: Tensor) -> Tensor:
    return x.squeeze(0).transpose(0, 1)


def _split_sequences(x: Tensor, counts: list[int]) -> tuple[Tensor, ...]:
    return torch.split(x[: sum(counts)], counts) if counts else ()


def _join_sequences(parts: Iterable[Tensor], like: Tensor, size: int) -> Tensor:
    """Join the rows of the sequences, padded with zeros to the length of ``like``."""
    rows = [_as_rows(part) for part in parts]
    rest = len(like) - sum(map(len, rows))
    return torch.cat((*rows, like.new_zeros(rest, like.shape[1], size)) if rest or not rows else rows)


def _locate_rows(x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Return for each row the number of its sequence and its step there; rows after the last sequence belong to none."""
    ends = lengths.cumsum(0)
    i = segments_of(len(x), ends)
    starts = torch.cat((ends - lengths, ends[-1:] if len(ends) else ends.new_zeros(1)))
    return i, torch.arange(len(x), device=x.device) - starts.index_select(0, i)
