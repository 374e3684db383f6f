"""Cross-entropy over a large vocabulary, with the logits computed inside the loss.

    LinearCrossEntropy   z = h wᵀ + b     ℓ = -Σ q log p + ζ w_t lse²     p = softmax(z),  lse = log Σ eᶻ
                         G  = g c ((Σ q + 2 ζ w_t lse) p - q)             q = w ((1 - ε) t + ε / words)
                         gy = (G w, Gᵀ h, Σ G)

y is (h, w) or (h, w, b): h (N, ..., features) or (features,), w (words, features) and b (words,). The target holds labels, (N,
...) or (), and t are their one-hot vectors. In q, w is the weight of a word, 1 by default; ε is ``label_smoothing`` and ζ
``z_loss``. The reduction sets c to 1 for "sum" and "none", 1 / Σ w_t for "mean", 1/N for "batch".
"""

import re
from typing import Any, NamedTuple

import torch
from attrs import field
from torch import Tensor, strided

from funcnet.errors import describe, number, value_error
from funcnet.explanations import explain_loss_error, raise_explained
from funcnet.kernels import vocabulary as kernels
from funcnet.kernels.vocabulary_blocks import Gradients, Read, Slopes, Vocabulary
from funcnet.losses.label_loss import LabelLoss
from funcnet.losses.parts import Weight
from funcnet.precision import rounded
from funcnet.value import frozen


class Kept(NamedTuple):
    """The cache: the arguments of the kernels, the derivatives of the terms, the factor of their sum, and the shape of h."""

    given: Vocabulary
    slopes: Slopes
    factor: Tensor
    shape: tuple[int, ...]


@frozen
class LinearCrossEntropy(LabelLoss):
    """Linear map, softmax and cross-entropy in one: ``torch.nn.LinearCrossEntropyLoss``, with the weight as part of y.

        ℓ  = -Σ q log p + ζ w_t lse²            z = h wᵀ + b,  p = softmax(z),  lse = log Σ eᶻ
        G  = g c ((Σ q + 2 ζ w_t lse) p - q)    q = w ((1 - ε) t + ε / words), w the weights of the words, t one-hot
        gy = (G w, Gᵀ h, Σ G)                   for h, w and b

    The logits of all rows are never in memory together: they are computed for a few rows at a time, used and dropped. A step with
    8192 rows, 512 features and 32 000 words takes 102 MB, including 82 MB for the gradients; ``Linear`` and ``CrossEntropy`` take
    4.2 GB, but are faster below a thousand words. ``__call__`` computes one product of the size of the logits, ``value_and_grad``
    three, and a sum of losses or ``as_layer`` four. Half precision is computed in float32 and rounded once. Derivatives with
    ``torch.func`` are exact to any order, but store the logits.

    End the net with ``DeferredLinear``, which returns the pair (h, weight) instead of their product and otherwise behaves like
    ``Linear``: in params, optimizers and ``tied``. To predict logits, replace it with ``Linear``: the params are the same.

    Args:
        weight: w, a factor for the terms of each word.
        ignore_index: Rows with this label are ignored. Their gradient is 0, even if h is infinite or NaN.
        reduction: ``"mean"`` over rows, weighted by ``weight``; ``"sum"``; ``"none"`` for one value per row; or ``"batch"`` for
            the sum divided by N.
        label_smoothing: ε, the share of each target that is spread evenly over all words.
        z_loss: ζ, the factor of lse², which keeps the logits from drifting; 1e-4 is usual.

    Shape:
        y (h, w) or (h, w, b) of (N, ..., features), (words, features) and (words,), labels (N, ...) or () → (), or the shape of
        the labels with ``reduction="none"``

    Cache:
        y, the labels, a mask of the rows that are not ignored, the derivatives of each row's term, and the shape of h.

    Raises:
        ValueError: If y is not a tuple of these shapes, if the number of weights differs from the number of words, or if a label
            is neither a word nor ``ignore_index`` (on the CPU).

    References:
        ``torch.nn.LinearCrossEntropyLoss``; Szegedy et al. 2016, section 7, for ``label_smoothing``; Chowdhery et al. 2022,
        section 5, for ``z_loss``.

    >>> from funcnet.combinators.sequential import serial
    >>> from funcnet.layers.embedding.embedding import Embedding
    >>> from funcnet.layers.linear.deferred_linear import DeferredLinear
    >>> from funcnet.optim.sgd import SGD
    >>> from funcnet.train import train_step
    >>> net = serial(Embedding(1000, 16), DeferredLinear(16, 1000, bias=False))
    >>> step = train_step(net, LinearCrossEntropy(label_smoothing=0.1), SGD(lr=0.1))
    >>> params, words = net.init(0), torch.arange(8)
    >>> params, state, value = step(params, step.opt.init(params), words, words + 1)
    >>> value.shape
    torch.Size([])
    """

    label_smoothing: float = field(default=0.0, validator=number(0, at_most=1))
    z_loss: float = field(default=0.0, validator=number(0))

    def forward(self, y: Any, target: Tensor) -> tuple[Tensor, Kept]:
        kept = self._prepare(y, target)
        try:
            return self._value(kept, kernels.read(kept.given)), kept
        except (IndexError, RuntimeError) as error:
            raise self._label_error(len(kept.given.w), error) from None

    def backward(self, cache: Kept, g: Tensor | None = None) -> Any:
        return self._in_form_of_y(cache, self._backpropagate(cache, g)[1])

    def value_and_grad(self, y: Any, target: Tensor) -> tuple[Tensor, Any]:
        """Return the value and the gradient of y, from one pass over the rows.

        Args:
            y: The pair (h, w) or the triple (h, w, b).
            target: The labels.
        """
        (value,), gy = self.parts_and_grad(y, target)
        return value, gy

    def parts_and_grad(self, y: Any, target: Any, shares: tuple[Weight, ...] | None = None) -> tuple[tuple[Tensor, ...], Any]:
        """Return the value, as the only part, and the gradient of y times ``shares``, from one pass over the rows.

        Args:
            y: The pair (h, w) or the triple (h, w, b).
            target: The labels.
            shares: The share of this batch in the mean, as a tuple of one number. Default: ``None``, for 1.
        """
        try:
            kept = self._prepare(y, target)
            found, gradients = self._backpropagate(kept, None if shares is None else shares[0])
            return (self._value(kept, found),), self._in_form_of_y(kept, gradients)
        except Exception as error:
            raise_explained(explain_loss_error(self, y, target, error), error)

    def over_y(self, terms: Tensor, leaf: Tensor) -> Tensor | None:
        return None  # the kernel returns zeros for rows without a gradient, and w and b have no terms

    def _prepare(self, y: Any, target: Tensor) -> Kept:
        """Return the cache: the arguments of the kernels, and the factors of lse, z_t, lse² and Σ r z in the terms."""
        h, w, b = self._operands(y)
        labels = self._labels(h, target).reshape(-1)
        counts, e = labels != self.ignore_index, self.label_smoothing
        t, wide = torch.where(counts, labels, 0), torch.promote_types(h.dtype, torch.float32)
        of_words = None if self.weight is None else torch.tensor(self.weight, dtype=wide, device=h.device)
        of_rows, mean = counts.to(wide), 1.0
        if of_words is not None:
            of_rows, mean = of_rows * self._at(of_words, t), sum(self.weight or ()) / w.shape[0]
        given = Vocabulary(h.reshape(-1, h.shape[-1]), w, b, t, counts, self._spread_smoothing(of_words, w, wide))
        beta = of_rows * (1 - e) if e else of_rows
        a = beta + counts.to(wide) * (e * mean) if e else beta
        c = of_rows * (2 * self.z_loss) if self.z_loss else None
        slopes = Slopes(a, beta, c, counts.to(wide) if e else None)
        return Kept(given, slopes, self._factor(h, of_rows), tuple(h.shape))

    def _at(self, of_words: Tensor, t: Tensor) -> Tensor:
        """Return the weight of each label."""
        try:
            return of_words.gather(0, t)
        except (IndexError, RuntimeError) as error:
            raise self._label_error(len(of_words), error) from None

    def _spread_smoothing(self, of_words: Tensor | None, w: Tensor, wide: torch.dtype) -> Tensor | None:
        """Return r, the share of each word in all targets."""
        share = self.label_smoothing / w.shape[0]
        if not share:
            return None
        return w.new_full((w.shape[0],), share, dtype=wide) if of_words is None else of_words * share

    def _factor(self, h: Tensor, of_rows: Tensor) -> Tensor:
        """Return c: 0 if every row is ignored, NaN for an empty batch."""
        n = h.shape[0] if self.reduction == "batch" and h.dim() > 1 else 1
        if not of_rows.numel() or self.reduction != "mean":
            is_mean = self.reduction in ("mean", "batch") and not of_rows.numel()
            return of_rows.new_full((), torch.nan if is_mean else 1 / n)
        total = of_rows.sum()
        c = total.clamp_min(torch.finfo(of_rows.dtype).tiny).reciprocal()
        return torch.where(total > 0, c, 0.0)

    def _value(self, kept: Kept, found: Read) -> Tensor:
        """Return the reduced terms."""
        lse, at_label, spread = found
        slopes = kept.slopes
        terms = slopes.a * lse - slopes.beta * at_label
        if spread is not None and slopes.delta is not None:
            terms = terms - slopes.delta * spread
        if slopes.c is not None:
            terms = terms + slopes.c * (lse * lse * 0.5)
        value = terms.reshape(kept.shape[:-1]) if self.reduction == "none" else terms.sum() * kept.factor
        return rounded(value, kept.given.h)

    def _backpropagate(self, kept: Kept, g: Any) -> tuple[Read, Gradients]:
        """Return the results of the kernel: what it read, and the gradients of h, w and b for the gradient g of the value."""
        wide = kept.slopes.a.dtype
        of_terms = kept.factor if g is None else (g.to(wide) if isinstance(g, Tensor) else g) * kept.factor
        given = kept.given
        if self.reduction == "none" and isinstance(g, Tensor):
            of_terms = of_terms.reshape(-1)  # a row with the gradient 0 can contain infinities
            given = given._replace(counts=given.counts & ((of_terms != 0) | given.h.isfinite().all(1)))
        try:
            return kernels.read_and_pull_back(given, kept.slopes.scaled(of_terms))
        except (IndexError, RuntimeError) as error:
            raise self._label_error(len(kept.given.w), error) from None

    def _in_form_of_y(self, kept: Kept, gradients: Gradients) -> Any:
        """Return the gradients in the form of y."""
        gh, gw, gb = gradients
        gh = gh.reshape(kept.shape)
        return (gh, gw) if gb is None else (gh, gw, gb)

    def _operands(self, y: Any) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return h, w and b after checking that they and the weights of the words fit together."""
        if not isinstance(y, tuple) or len(y) not in (2, 3) or not all(map(_is_floating, y)):
            raise value_error(self, "y must be (h, w) or (h, w, b), dense floating tensors of one dtype", y)
        h, w, b = (*y, None)[:3]
        of_bias = () if b is None else (tuple(b.shape),)
        right = h.dim() and w.dim() == 2 and w.shape[0] and w.shape[1] == h.shape[-1] and of_bias in ((), (w.shape[:1],))
        if not right or len({one.dtype for one in y}) > 1:
            rule = "y must be (h, w) or (h, w, b) with shapes (N, ..., features), (words, features), (words,) and one dtype"
            raise value_error(self, rule, " and ".join(map(describe, y)))
        if self.weight and len(self.weight) != len(w):
            rule = f"weight must have one number for each of the {len(w)} words"
            raise value_error(self, rule, f"{len(self.weight)} numbers")
        return h, w, b

    def _labels(self, h: Tensor, target: Any) -> Tensor:
        kind = isinstance(target, Tensor) and not target.is_floating_point() and not target.is_complex()
        if not kind or target.is_nested or target.layout is not strided or target.shape != h.shape[:-1]:
            shape = f"{tuple(h.shape[:-1])}, the shape of h {tuple(h.shape)} without the last axis"
            raise value_error(self, f"labels must be integers of shape {shape}", target)
        labels: Tensor = target if target.dtype == torch.int64 else target.long()
        return labels

    def _label_error(self, words: int, error: Exception) -> Exception:
        """Return an error that names the label if the kernel's error does, else the kernel's error."""
        found = re.search(r"index (-?\d+) is out of bounds", str(error))
        rule = f"every label must be from 0 to {words - 1}, or ignore_index={self.ignore_index}"
        return value_error(self, rule, found[1]) if found else error


def _is_floating(x: Any) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point() and not x.is_nested and x.layout is strided
