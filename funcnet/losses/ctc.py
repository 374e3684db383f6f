"""Connectionist temporal classification: labels without positions in time.

    CTC   ℓ = -log Σ Π_t exp y[t, π_t]          over the alignments π that collapse to the labels
          gy = -g c_n Σ γ_t(s)                  at step t and class c, over the states s of class c

y is (T, N, C) or (T, C): log-probabilities of C classes at T steps. An alignment has a class for each step; it collapses by
merging equal neighbors and then removing blanks. γ is the probability of a state at a step, given the labels. The reduction sets
c_n to 1 for "sum" and "none", 1 / (N S_n) for "mean", where S_n is the number of labels, at least 1, and 1 / N for "batch".
"""

import re
from typing import Any, NamedTuple

import torch
from attrs import field
from torch import Tensor, strided

from funcnet.errors import flag, value_error, whole
from funcnet.kernels import alignment as kernels
from funcnet.kernels.alignment import IMPOSSIBLE, Sums
from funcnet.kernels.tracing import can_look_at
from funcnet.losses.loss import Loss, reductions
from funcnet.precision import in_single, rounded
from funcnet.value import frozen


class Labels(NamedTuple):
    """Padded labels (N, S), the number of labels in each row (N,), and the number of steps (N,)."""

    labels: Tensor
    counts: Tensor
    steps: Tensor


class Kept(NamedTuple):
    """The cache: sums, class of each state, states reachable by a skip, γ at the last steps, c_n, shape of y, an empty tensor."""

    sums: Sums
    classes: Tensor
    may_skip: Tensor
    ends: Tensor
    factors: Tensor
    shape: tuple[int, ...]
    like: Tensor


@frozen
class CTC(Loss):
    """Negative log-likelihood of labels, summed over all their alignments with the steps: ``torch.nn.CTCLoss``.

        ℓ  = -log Σ Π_t exp y[t, π_t]          over the alignments π that collapse to the labels
        gy = -g c_n Σ γ_t(s)                   at step t and class c, over the states s of class c

    y holds log-probabilities, from ``LogSoftmax(-1)``. γ is the probability of a state at a step, given the labels. gy is the
    derivative with respect to y; torch's gradient equals it only after the backward of log_softmax. Half precision is computed in
    float32.

    Args:
        blank: The class that means "no label".
        reduction: ``"mean"`` of the terms, each divided by its number of labels; ``"sum"``; ``"none"`` for one value per
            sequence; or ``"batch"`` for the sum divided by N.
        zero_infinity: Whether labels that need more steps than there are give the value and the gradient 0 instead of ∞ and NaN.

    Shape:
        y (T, N, C), or (T, C) for one sequence, target (labels, input_lengths, target_lengths) → (), or (N,) with
        ``reduction="none"``. labels are integers: (N, S), where only the first ``target_lengths`` of a row count, or all
        sequences concatenated. lengths are (N,), or () for one sequence, as tensors or tuples.

    Cache:
        The sums over alignments, the states of each sequence, c_n, and an empty tensor with the shape of y.

    Raises:
        ValueError: If ``blank`` is not a class, if y or the target has another form, or, on the CPU, if lengths exceed y or the
            labels, or if a label is the blank or not a class.

    References:
        Graves et al. 2006, section 4; ``torch.nn.CTCLoss``.

    >>> y = torch.zeros(4, 1, 3).log_softmax(2)
    >>> CTC()(y, (torch.tensor([[1, 2]]), torch.tensor([4]), torch.tensor([2])))
    tensor(0.8432)
    """

    mean_of_terms = False

    blank: int = field(default=0, validator=whole(0))
    reduction: str = field(default="mean", validator=reductions)
    zero_infinity: bool = field(default=False, validator=flag)

    def forward(self, y: Tensor, target: Any) -> tuple[Tensor, Kept]:
        rows = self._rows_of(y)
        given = self._given(rows, y.dim() == 2, target)
        classes, may_skip = self._states(given)
        try:
            e = rows.gather(2, classes.expand(len(rows), *classes.shape)).clamp_min(IMPOSSIBLE)
        except (IndexError, RuntimeError) as error:
            raise self._explain_kernel_error(rows, error) from None
        sums = kernels.forward_sums(e, may_skip)
        terms, ends = _finish(sums, given)
        impossible, factors = terms > -0.5 * IMPOSSIBLE, self._factors(terms, given)
        terms = torch.where(impossible, 0.0 if self.zero_infinity else torch.inf, terms) * factors
        factors = torch.where(impossible, 0.0 if self.zero_infinity else torch.nan, factors)
        value = terms.sum() if self.reduction != "none" else terms.reshape(y.shape[1:-1])
        if not len(terms) and self.reduction in ("mean", "batch"):
            value = value * torch.nan
        return rounded(value, y), Kept(sums, classes, may_skip, ends, factors, tuple(y.shape), y.new_empty(0))

    def backward(self, cache: Kept, g: Tensor | None = None) -> Tensor:
        gamma = kernels.occupations(cache.sums, cache.may_skip, cache.ends)
        factors = cache.factors if g is None else (g.to(gamma.dtype) if isinstance(g, Tensor) else g) * cache.factors
        classes = cache.classes.expand(gamma.shape)
        spread = gamma.new_zeros((*gamma.shape[:2], cache.shape[-1]))
        gy = spread.scatter_add(2, classes, gamma * -factors.reshape(-1).unsqueeze(1))
        return rounded(gy, cache.like).reshape(cache.shape)

    def weight_of(self, target: Any) -> float | Tensor:
        lengths = target[2]
        return lengths.numel() if isinstance(lengths, Tensor) else len(lengths)

    def over_y(self, terms: Tensor, leaf: Tensor) -> Tensor | None:
        return terms.reshape(-1, 1) if leaf.is_floating_point() else None

    def _factors(self, terms: Tensor, given: Labels) -> Tensor:
        """Return c_n."""
        if self.reduction in ("sum", "none") or not len(terms):
            return torch.ones_like(terms)
        of_rows = given.counts.clamp_min(1) if self.reduction == "mean" else torch.ones_like(terms)
        return (of_rows * len(terms)).to(terms.dtype).reciprocal()

    def _rows_of(self, y: Any) -> Tensor:
        """Return y as (T, N, C), in float32 or wider."""
        right = isinstance(y, Tensor) and y.is_floating_point() and not y.is_nested and y.layout is strided
        if not right or y.dim() not in (2, 3) or not len(y) or self.blank >= y.shape[-1]:
            rule = f"y must be log-probabilities (T, N, C) or (T, C) of at least one step, and blank={self.blank} a class"
            raise value_error(self, rule, y)
        return in_single(y if y.dim() == 3 else y.unsqueeze(1))

    def _given(self, rows: Tensor, is_one: bool, target: Any) -> Labels:
        """Return the labels (N, S), with blanks as padding, and their lengths."""
        if not isinstance(target, tuple) or len(target) != 3:
            raise value_error(self, "target must be a tuple (labels, input_lengths, target_lengths)", target)
        n, shape = rows.shape[1], () if is_one else (rows.shape[1],)
        steps, counts = [self._lengths(one, name, shape, rows) for one, name in zip(target[1:], _LENGTHS, strict=True)]
        labels = self._integers(target[0], "labels", rows)
        if labels.dim() == 1 and not is_one:
            labels = _pad(labels, counts)
        labels = labels.reshape(1, -1) if labels.dim() < 2 else labels
        if labels.dim() != 2 or len(labels) != n:
            in_all = f" with {int(counts.sum())} in all" if can_look_at(counts) else ""
            raise value_error(self, f"labels must be of shape ({n}, S), or all in one axis{in_all}", target[0])
        if can_look_at(counts) and can_look_at(labels):
            self._require_lengths(Labels(labels, counts, steps), rows)
        valid = torch.arange(labels.shape[1], device=labels.device) < counts.unsqueeze(1)
        if can_look_at(labels) and ((labels == self.blank) & valid).any():
            raise value_error(self, f"labels must differ from blank={self.blank}", str(self.blank))
        return Labels(torch.where(valid, labels, self.blank), counts, steps)

    def _lengths(self, lengths: Any, name: str, shape: tuple[int, ...], rows: Tensor) -> Tensor:
        if isinstance(lengths, (tuple, list, int)):
            lengths = torch.tensor(lengths, device=rows.device)
        found = self._integers(lengths, name, rows)
        if found.shape != shape and not (shape == () and found.shape == (1,)):
            raise value_error(self, f"{name} must be of shape {shape}", lengths)
        return found.reshape(-1)

    def _integers(self, x: Any, name: str, rows: Tensor) -> Tensor:
        if not isinstance(x, Tensor) or x.is_floating_point() or x.is_complex() or x.dtype is torch.bool:
            raise value_error(self, f"{name} must be integers", x)
        found: Tensor = x.long()
        return found

    def _require_lengths(self, given: Labels, rows: Tensor) -> None:
        """Raise for lengths that exceed y or the labels."""
        for name, lengths, most in zip(_LENGTHS, (given.steps, given.counts), (len(rows), given.labels.shape[1]), strict=True):
            least, largest = lengths.aminmax() if lengths.numel() else (0, 0)
            if least < 0 or largest > most:
                raise value_error(self, f"{name} must be from 0 to {most}", f"{int(least)} to {int(largest)}")

    def _states(self, given: Labels) -> tuple[Tensor, Tensor]:
        """Return the class of each state (N, 2 S + 1), and a mask of the states reachable from the state two before."""
        n, s = given.labels.shape
        blanks = torch.full_like(given.labels, self.blank)
        pairs = torch.stack([blanks, given.labels], 2).reshape(n, 2 * s)
        classes = torch.cat([pairs, pairs.new_full((n, 1), self.blank)], 1)
        earlier = torch.constant_pad_nd(classes, (2, 0), self.blank)[:, : 2 * s + 1]
        return classes, (classes != self.blank) & (classes != earlier)

    def _explain_kernel_error(self, rows: Tensor, error: Exception) -> Exception:
        found = re.search(r"index (-?\d+) is out of bounds", str(error))
        return value_error(self, f"every label must be from 0 to {rows.shape[2] - 1}", found[1]) if found else error


_LENGTHS = ("input_lengths", "target_lengths")


def _pad(labels: Tensor, counts: Tensor) -> Tensor:
    """Return concatenated labels as (N, S); if the lengths cannot be read, S is the total number of labels."""
    most = int(counts.max()) if can_look_at(counts) and counts.numel() else len(labels)
    if can_look_at(counts) and int(counts.sum()) != len(labels):
        return labels  # _given raises for this form
    places = (counts.cumsum(0) - counts).unsqueeze(1) + torch.arange(most, device=labels.device)
    return labels[places.clamp(0, max(len(labels) - 1, 0))] if len(labels) else labels.new_zeros((len(counts), 0))


def _finish(sums: Sums, given: Labels) -> tuple[Tensor, Tensor]:
    """Return -log Z, and γ at the last step of each sequence."""
    last, state = (given.steps - 1).clamp_min(0), torch.arange(sums.a.shape[2], device=sums.a.device)
    at_end = sums.a.gather(0, last.reshape(1, -1, 1).expand(1, *sums.a.shape[1:])).squeeze(0)
    behind = 2 * given.counts.unsqueeze(1) - state
    finals = torch.where((behind == 0) | (behind == 1), at_end, IMPOSSIBLE)
    of_steps = torch.logsumexp(finals, 1) + sums.total.gather(0, last.unsqueeze(0)).squeeze(0)
    of_nothing = torch.where(given.counts == 0, 0.0, IMPOSSIBLE).to(of_steps.dtype)
    here = torch.arange(len(sums.a), device=last.device).unsqueeze(1) == given.steps - 1
    ends = torch.where(here.unsqueeze(2), torch.softmax(finals, 1), 0.0)
    return -torch.where(given.steps == 0, of_nothing, of_steps), ends
