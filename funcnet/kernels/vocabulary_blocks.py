"""A softmax over a large vocabulary, block by block, with the formulas of ``vocabulary``.

If the tensors are not mapped over or differentiated, one pass writes to memory that it allocates once: the logits of a block are
turned into p and then G in place, and the gradients are summed into the returned tensors.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from funcnet.kernels import limits, linear
from funcnet.kernels.choices import NEVER, choice
from funcnet.kernels.losses import product
from funcnet.kernels.tracing import is_compiling, is_differentiated, is_eager, may_search
from funcnet.precision import HALF, in_single, rounded

# How many logits in float32 are computed at a time, and how many elements of w are in a tile of a product. GFLOP/s of the three
# products of 32 000 words and 512 features, with 64 rows at a time (2 M logits, 8 MB) and with 128, on one core of an AMD EPYC:
#
#                                   64 rows               128 rows
#     MKL                           91    94    112       97    104   114
#     oneDNN                        182   166   -         217   198   -
#     oneDNN, tiles of 1000 words   175   158   164       -     -     183
#     oneDNN, tiles of 4000 words   182   162   176       -     -     -
#
# oneDNN cannot add a product to a tensor, so gw is summed tile by tile. The whole pass over 2048 rows takes 1.7, 1.35, 1.2 and
# 1.7 s with 1, 2, 4 and 8 M logits at a time. In bfloat16, where tiles of w are cast to float32 twice per block, it takes 1.6,
# 1.24, 1.10 and 1.10 s.
BLOCKS = choice("blocks of logits", {"all at once": NEVER, "blocks": 0}, lambda cpu: 1 << 21, "logits")
"""Number of logits that are computed at a time in float32, at least those of one row; twice as many in half precision."""

_TILE = 1 << 20


class Vocabulary(NamedTuple):
    """Hidden rows h (N, features), w (words, features), b (words,) or ``None``, labels t, a mask of rows, and r or ``None``."""

    h: Tensor
    w: Tensor
    b: Tensor | None
    t: Tensor
    counts: Tensor
    r: Tensor | None

    def rows(self, part: slice) -> "Vocabulary":
        """Return some of the rows, in float32 at least, with zeros for those that do not count."""
        counts = self.counts[part]
        h = torch.where(counts.unsqueeze(1), in_single(self.h[part]), 0.0)
        return self._replace(h=h, t=self.t[part].unsqueeze(1), counts=counts)


class Slopes(NamedTuple):
    """The coefficients of G for each row; ``c`` and ``delta`` can be ``None`` for zeros."""

    a: Tensor
    beta: Tensor
    c: Tensor | None
    delta: Tensor | None

    def rows(self, part: slice) -> "Slopes":
        """Return the coefficients of some of the rows."""
        return self._map(lambda one: one[part])

    def scaled(self, factor: Tensor) -> "Slopes":
        """Return all coefficients times a factor, or one factor per row."""
        return self._map(lambda one: one * factor)

    def _map(self, f: Callable[[Tensor], Tensor]) -> "Slopes":
        a, beta, c, delta = self
        return Slopes(f(a), f(beta), None if c is None else f(c), None if delta is None else f(delta))


Read = tuple[Tensor, Tensor, Tensor | None]
"""lse, the logit at the label, and Σ r z of each row."""

Gradients = tuple[Tensor, Tensor, Tensor | None]
"""gh, gw and gb."""


def read_blocks(given: Vocabulary) -> Read:
    """Return the parts of the value of a loss."""
    parts = map(given.rows, _blocks(given))
    if not _may_write(given):
        return _joined([_read_block(part, _logits(part)) for part in parts])
    z = _space(given)
    return _joined([_read_in_place(part, _logits_of_row_block(part, z)) for part in parts])


def pull_back_blocks(given: Vocabulary, slopes: Slopes) -> tuple[Read, Gradients]:
    """Return the parts of the value of a loss, and the gradients."""
    return _pulled_back(given, slopes) if _may_write(given, slopes) else _pulled_back_by_formula(given, slopes)


def _may_write(*values: Vocabulary | Slopes) -> bool:
    """Return whether new tensors may be written to: the inputs are plain data, not mapped over and not differentiated."""
    tensors = [one for value in values for one in value if one is not None]
    plain = all([type(one) is Tensor and not one.is_meta for one in tensors])  # noqa: C419
    return plain and is_eager() and not is_differentiated(*tensors)


def rows_at_once(given: Vocabulary) -> int:
    """Return the number of rows in a block."""
    logits = BLOCKS.value * (2 if given.h.dtype in HALF else 1)
    return max(1, logits // given.w.shape[0])


def _blocks(given: Vocabulary) -> Iterator[slice]:
    """Yield the rows block by block; all at once if tensors have no memory or the loop would be traced."""
    n = given.h.shape[0]
    if is_compiling() or given.h.is_meta:
        yield slice(0, n)
        return
    step = rows_at_once(given)
    yield from [slice(i, min(i + step, n)) for i in range(0, max(n, 1), step)]


def _tiles(w: Tensor) -> list[slice]:
    """Return slices of the words, for products whose operands stay in the cache."""
    step = max(1, _TILE // max(w.shape[1], 1))
    return [slice(i, i + step) for i in range(0, w.shape[0], step)]


def _logits(part: Vocabulary) -> Tensor:
    b = None if part.b is None else in_single(part.b)
    return linear.linear(part.h, in_single(part.w), b)


def _logits_of_row_block(part: Vocabulary, z: Tensor) -> Tensor:
    """Write the logits of a block of rows to the first rows of ``z``, and return these."""
    z = z[: part.h.shape[0]]
    for tile in _tiles(part.w):
        z[:, tile] = _logits(part._replace(w=part.w[tile], b=None if part.b is None else part.b[tile]))
    return z


def _space(given: Vocabulary) -> Tensor:
    """Return memory for the logits of a block."""
    rows = min(rows_at_once(given), given.h.shape[0])
    return given.h.new_empty((rows, given.w.shape[0]), dtype=torch.promote_types(given.h.dtype, torch.float32))


def _read_block(part: Vocabulary, z: Tensor) -> Read:
    return limits.logsumexp(z, 1, False), z.gather(1, part.t).squeeze(1), _spread(part.r, z)


def _spread(r: Tensor | None, z: Tensor) -> Tensor | None:
    """Return Σ r z over the words; the logit of a word with r = 0 can be -∞, so the sum is searched for NaN."""
    if r is not None and may_search(z):
        found = torch.mv(z, r)
        if not limits.has_nan(found):
            return found
    return None if r is None else product(r, z).sum(1)


def _read_in_place(part: Vocabulary, z: Tensor) -> Read:
    """Return the result of ``_read_block``, and overwrite z with p: lse follows from the largest p, which is eᵗᵒᵖ⁻ˡˢᵉ.

    64 rows of 32 000 words take 1.4 ms; ``torch.logsumexp`` takes 17, and the softmax 0.7 more.
    """
    at_label, spread = z.gather(1, part.t).squeeze(1), _spread(part.r, z)
    top = z.amax(1)
    torch.softmax(z, 1, out=z)
    return top - z.amax(1).log(), at_label, spread


def _joined(found: list[Read]) -> Read:
    lse, at_label, spread = zip(*found, strict=True)
    return torch.cat(lse), torch.cat(at_label), None if spread[0] is None else torch.cat(spread)


def _pulled_back(given: Vocabulary, slopes: Slopes) -> tuple[Read, Gradients]:
    """Process the rows in one pass that writes to new tensors."""
    z, gh = _space(given), torch.empty_like(given.h, memory_format=torch.contiguous_format)
    gw = torch.zeros_like(given.w, dtype=z.dtype, memory_format=torch.contiguous_format)
    gb = None if given.b is None else gw.new_zeros(len(gw))
    found = []
    for block in _blocks(given):
        part, own = given.rows(block), slopes.rows(block)
        p = _logits_of_row_block(part, z)
        found.append(_read_in_place(part, p))
        gz = _turned_into_gradient(part, own, p, found[-1][0])
        gh[block] = _add_products(part, gz, gw)
        if gb is not None:
            gb += gz.sum(0)
    return _joined(found), (gh, rounded(gw, given.w), None if gb is None else rounded(gb, given.w))


def _turned_into_gradient(part: Vocabulary, slopes: Slopes, p: Tensor, lse: Tensor) -> Tensor:
    """Return G, in the memory of p."""
    p.mul_(_of_p(slopes, lse).unsqueeze(1)).scatter_add_(1, part.t, -slopes.beta.unsqueeze(1))
    return p if part.r is None or slopes.delta is None else p.addr_(slopes.delta, part.r, alpha=-1)


def _of_p(slopes: Slopes, lse: Tensor) -> Tensor:
    return slopes.a if slopes.c is None else slopes.a + slopes.c * lse


def _add_products(part: Vocabulary, gz: Tensor, gw: Tensor) -> Tensor:
    """Add Gᵀ h to gw, and return G w."""
    gh = torch.zeros_like(part.h)
    for tile in _tiles(part.w):
        gh += linear.matmul_input_grad(gz[:, tile], in_single(part.w[tile]))
        if linear.by_onednn():
            gw[tile] += linear.matmul_weight_grad(gz[:, tile], part.h)
        else:
            gw[tile].addmm_(gz[:, tile].t(), part.h)
    return gh


def _pulled_back_by_formula(given: Vocabulary, slopes: Slopes) -> tuple[Read, Gradients]:
    """Return the same results without writing to tensors, for transforms of ``torch.func`` and for the compiler."""
    found, gh, total = [], [], None
    for block in _blocks(given):
        one, *pulled = _pull_back_block(given.rows(block), slopes.rows(block))
        found.append(one)
        gh.append(pulled[0])
        total = pulled[1:] if total is None else [a + b for a, b in zip(total, pulled[1:], strict=True)]
    gw, gb = [rounded(one, given.w) for one in total or ()]
    return _joined(found), (rounded(torch.cat(gh), given.h), gw, None if given.b is None else gb)


def _pull_back_block(part: Vocabulary, slopes: Slopes) -> tuple[Read, Tensor, Tensor, Tensor]:
    z = _logits(part)
    found = _read_block(part, z)
    gz = torch.softmax(z, 1) * _of_p(slopes, found[0]).unsqueeze(1)
    gz = gz.scatter_add(1, part.t, -slopes.beta.unsqueeze(1))
    if part.r is not None and slopes.delta is not None:
        gz = gz - slopes.delta.unsqueeze(1) * part.r
    return found, linear.matmul_input_grad(gz, in_single(part.w)), linear.matmul_weight_grad(gz, part.h), gz.sum(0)
