"""Contrastive losses: they align some vectors and separate others. û = u / n(u), n(u) = √(‖u‖² + ε²).

    CosineEmbedding   c = û · v̂      ℓ = 1 - c where t > 0, else max(0, c - margin)
                      gu = s (v̂ - c û) / n(u),  gv = s (û - c v̂) / n(v)        s = -1 where t > 0, else [c ≥ margin]
    InfoNCE           S = q̂ k̂ᵀ / τ      ℓᵢ = -log p(Sᵢ)ᵢ                        p = softmax, over the keys
                      gS = p - I        gq̂ = gS k̂ / τ,  gk̂ = gSᵀ q̂ / τ          gu = (gû - (gû · û) û) / n(u)
    NTXent            S = x̂ x̂ᵀ / τ      ℓᵢ = Σ log(1 + e^(Lᵢ - Sᵢⱼ)), over the j ≠ i with the same label
                      gS_ij = -σ(Lᵢ - Sᵢⱼ)                    Lᵢ = log Σ e^Sᵢₖ, over the k with other labels
                      gS_ik = e^(Sᵢₖ - Lᵢ) Σⱼ σ(Lᵢ - Sᵢⱼ)     gx̂ = (gS + gSᵀ) x̂ / τ

gy is (gu, gv), (gq, gk) or gx, times the gradient of ℓ; gq, gk and gx follow from gq̂, gk̂ and gx̂ as gu follows from gû. All
vectors are (N, features), and t is (N,). ε is 1e-6 for CosineEmbedding, as in torch, else 1e-8. It makes n smooth: the cosines of
a zero vector are 0, and its gradients are finite.
"""

import math
from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet.errors import flag, number, value_error
from funcnet.kernels import linear as products
from funcnet.kernels.activation import positive_part
from funcnet.kernels.extremes import length
from funcnet.kernels.limits import log_softmax, logsumexp
from funcnet.kernels.losses import log_sigmoid
from funcnet.losses.loss import Factor, reductions
from funcnet.losses.terms import TermLoss, over_classes, require_alike, require_labels, require_no_target, require_signs
from funcnet.value import frozen

Directed = tuple[Tensor, Tensor]  # û and n(u)

_EPS = 1e-8


@frozen
class _BatchLoss(TermLoss):
    """A loss whose terms depend on other rows too: a row whose term is ignored can still have a gradient."""

    @property
    def batch_dependent(self) -> bool:
        return True

    def over_y(self, terms: Tensor, leaf: Tensor) -> None:
        return None


def _normalize(u: Tensor, eps: float = _EPS) -> Directed:
    """Return û and n(u), with ``hypot`` instead of squares, which can overflow or underflow in float32."""
    n = torch.hypot(length(u, 2, [-1], eps / 1e4), u.new_full((), eps)).to(u.dtype)
    return u / n, n


def _normalize_grad(ga: Tensor, a: Tensor, n: Tensor) -> Tensor:
    """Return the gradient of u from the gradient of û."""
    return (ga - (ga * a).sum(-1, keepdim=True) * a) / n


@frozen
class CosineEmbedding(TermLoss):
    """Loss of the cosine between two vectors, pulled to 1 or pushed below a margin: ``torch.nn.CosineEmbeddingLoss``.

        ℓ  = 1 - c where t > 0, else max(0, c - margin)           c = û · v̂,  û = u / n(u),  n(u) = √(‖u‖² + 1e-12)
        gu = s (v̂ - c û) / n(u)      gv = s (û - c v̂) / n(v)      s = -1 where t > 0, else [c ≥ margin]
        gy = (gu, gv)                times the gradient of ℓ

    y is the pair (u, v), and its gradient is a pair too. The cosines are correct even if squares overflow float32.

    Args:
        margin: The largest cosine at which a pair with the target -1 costs nothing, from -1 to 1.
        reduction: ``"mean"`` over pairs, ``"sum"``, ``"none"`` for one value per pair, or ``"batch"`` for the sum divided by N.

    Shape:
        y a pair of (N, features) or (features,), target (N,) or () of 1 and -1 → (), or the shape of the target with
        ``reduction="none"``; only the sign of a floating target is used, and it has no gradient

    Cache:
        û, n(u), v̂, n(v) and the cosines, in float32 or wider, and the target.

    Raises:
        ValueError: If y is not a pair of floating tensors of the same shape, dtype and device, if the target is boolean or
            unsigned, or, in eager mode on the CPU, if it contains integers other than 1 and -1, zeros, or NaN.

    References:
        ``torch.nn.CosineEmbeddingLoss``.

    >>> u, v = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    >>> CosineEmbedding()((u, v), torch.tensor([-1, 1]))
    tensor(1.)
    """

    margin: float = field(default=0.0, validator=number())
    reduction: str = field(default="mean", validator=reductions)

    def cache(self, y: Any, target: Tensor) -> Any:
        u, v = require_alike(self, y, "(u, v)")
        if not u.dim():
            raise value_error(self, "u and v must have an axis of features", y[0])
        self._require_target(u, target)
        a, b = [_normalize(one, 1e-6) for one in (u, v)]  # torch adds 1e-12 to the squares
        return a, b, (a[0] * b[0]).sum(-1), target

    def loss(self, kept: Any) -> Tensor:
        *_, c, t = kept
        # for a 0-d c, torch.func returns the derivative of c - margin in float64
        return torch.where(t > 0, 1 - c, positive_part(-(self.margin - c)))

    def dloss_dy(self, kept: Any, g: Factor) -> Any:
        (a, nu), (b, nv), c, t = kept
        s = (~(t > 0) & (c >= self.margin)).to(c.dtype) - (t > 0).to(c.dtype)
        s, c = (s * g).unsqueeze(-1), c.unsqueeze(-1)
        return s * (b - c * a) / nu, s * (a - c * b) / nv

    def _require_target(self, u: Tensor, target: Any) -> None:
        if not isinstance(target, Tensor) or target.shape != u.shape[:-1]:
            raise value_error(self, f"target must be a tensor of shape {tuple(u.shape[:-1])}", target)
        require_signs(self, target)


@frozen
class InfoNCE(_BatchLoss):
    """Cross-entropy of finding each query's key among all keys of the batch, by their cosines: the loss of CLIP, CPC and SimCLR.

        ℓᵢ = -log p(Sᵢ)ᵢ             S = q̂ k̂ᵀ / τ,  p = softmax over the keys,  û = u / n(u),  n(u) = √(‖u‖² + 1e-16)
        gS = p - I                   gq̂ = gS k̂ / τ,  gk̂ = gSᵀ q̂ / τ
        gy = (gq, gk)                gu = (gû - (gû · û) û) / n(u), times the gradient of ℓ

    y is the pair (q, k) of queries and keys: row i of q belongs to row i of k. Its gradient is a pair too. The other rows of the
    batch are the negatives: a larger batch makes the task harder. Use ``shared`` to compute both with one encoder.

    Args:
        temperature: τ, the divisor of the cosines.
        symmetric: Whether to average this loss with the loss of finding the query of each key, as in CLIP.
        reduction: ``"mean"`` over queries, ``"sum"``, ``"none"`` for one value per query, or ``"batch"`` for the sum divided by
            N.

    Shape:
        y a pair of (N, features), target ``None`` → (), or (N,) with ``reduction="none"``

    Cache:
        q̂, n(q), k̂, n(k), and log softmax(S), with ``symmetric`` along both axes, in float32 or wider.

    Raises:
        ValueError: If ``temperature`` is not above 0, if y is not a pair of floating tensors (N, features) of the same shape,
            dtype and device, or if there is a target.

    References:
        van den Oord et al. 2018, eq. 4; Radford et al. 2021, figure 3, for ``symmetric``.

    >>> x = torch.eye(3)
    >>> InfoNCE(temperature=1.0)((x, x), None)
    tensor(0.5514)
    """

    temperature: float = field(default=0.07, validator=number(above=0))
    symmetric: bool = field(default=False, validator=flag)
    reduction: str = field(default="mean", validator=reductions)

    def cache(self, y: Any, target: Any) -> Any:
        q, k = require_alike(self, y, "(queries, keys)")
        require_no_target(self, target)
        if q.dim() != 2:
            raise value_error(self, "queries and keys must have the axes (N, features)", y[0])
        a, b = _normalize(q), _normalize(k)
        s = products.linear(a[0], b[0]) / self.temperature
        return a, b, log_softmax(s, 1), log_softmax(s, 0) if self.symmetric else None

    def loss(self, kept: Any) -> Tensor:
        _, _, by_query, by_key = kept
        own: Tensor = by_query.diagonal()
        return -own if by_key is None else -0.5 * (own + by_key.diagonal())

    def dloss_dy(self, kept: Any, g: Factor) -> Any:
        (a, nq), (b, nk), by_query, by_key = kept
        one = torch.eye(a.shape[0], dtype=a.dtype, device=a.device)
        gs = (by_query.exp() - one) * over_classes(g)
        if by_key is not None:
            gs = 0.5 * (gs + (by_key.exp() - one) * g)
        gs = gs / self.temperature
        ga, gb = products.matmul_input_grad(gs, b), products.matmul_weight_grad(gs, a)
        return _normalize_grad(ga, a, nq), _normalize_grad(gb, b, nk)


@frozen
class NTXent(_BatchLoss):
    """Cross-entropy of finding another example with the same label among examples with other labels, by their cosines.

        ℓᵢ = Σ log(1 + e^(Lᵢ - Sᵢⱼ)), over the j ≠ i with the same label         S = x̂ x̂ᵀ / τ,  Lᵢ = log Σ e^Sᵢₖ
        gS_ij = -σ(Lᵢ - Sᵢⱼ)      gS_ik = e^(Sᵢₖ - Lᵢ) Σⱼ σ(Lᵢ - Sᵢⱼ)            k with another label than i
        gx̂ = (gS + gSᵀ) x̂ / τ     gy = (gx̂ - (gx̂ · x̂) x̂) / n(x)                  n(x) = √(‖x‖² + 1e-16)

    Every other example with the same label is a positive. The term of an example is the sum over its positives. The mean is over
    all pairs of an example and a positive, and 0 if there are none.

    Args:
        temperature: τ, the divisor of the cosines.
        reduction: ``"mean"`` over the pairs, ``"sum"``, ``"none"`` for one value per example, or ``"batch"`` for the sum divided
            by N.

    Shape:
        y (N, features), labels (N,) → (), or (N,) with ``reduction="none"``

    Cache:
        x̂, n(x), S and L, in float32 or wider, and a mask of the pairs with the same label.

    Raises:
        ValueError: If ``temperature`` is not above 0, if y is not floating with two axes, or if the target is not N integers.

    References:
        Chen et al. 2020; ``optax.ntxent``.

    >>> NTXent(temperature=1.0)(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0, 1]))
    tensor(0.3133)
    """

    temperature: float = field(default=0.07, validator=number(above=0))
    reduction: str = field(default="mean", validator=reductions)

    def cache(self, y: Tensor, target: Tensor) -> Any:
        x = require_alike(self, (y,), "(x)")[0]
        if x.dim() != 2:
            raise value_error(self, "y must have the axes (N, features)", y)
        t = require_labels(self, y, target, x.shape[:1])
        a, n = _normalize(x)
        s, same = products.linear(a, a) / self.temperature, t.unsqueeze(1) == t
        far = logsumexp(torch.where(same, -math.inf, s), 1, True)
        return a, n, s, far, same

    def loss(self, kept: Any) -> Tensor:
        _, _, s, far, same = kept
        return torch.where(_others(same), -log_sigmoid(s - far), 0.0).sum(1)

    def term_weights(self, target: Tensor) -> Tensor:
        """Return the number of pairs that each example is in."""
        return _others(target.unsqueeze(1) == target).sum(1)

    def scale(self, kept: Any, terms: Tensor) -> Factor:
        if self.reduction != "mean":
            return super().scale(kept, terms)
        return _others(kept[-1]).sum().clamp_min(1).to(terms.dtype).reciprocal()

    def dloss_dy(self, kept: Any, g: Factor) -> Tensor:
        a, n, s, far, same = kept
        pull = torch.where(_others(same), torch.sigmoid(far - s) * over_classes(g), 0.0)
        near = torch.where(same, 0.0, torch.exp(s - torch.where(far > -math.inf, far, 0.0)))
        gs = (near * pull.sum(1, keepdim=True) - pull) / self.temperature
        return _normalize_grad(products.matmul_input_grad(gs + gs.T, a), a, n)


def _others(same: Tensor) -> Tensor:
    """Return a mask of the pairs of different examples with the same label."""
    return same & ~torch.eye(same.shape[0], dtype=torch.bool, device=same.device)
