"""SOAP: Adam in the eigenbases of Shampoo."""

from math import inf
from typing import Any

import torch
from attrs import field
from torch import Size, Tensor

from funcnet.errors import flag, number, whole
from funcnet.kernels import optim as kernels
from funcnet.optim.columns import Columns
from funcnet.optim.formulas import along, shrink
from funcnet.optim.moment_rule import Numbers
from funcnet.optim.moments import MomentOptimizer
from funcnet.optim.rates import Rate, pair_of_rates, rate_field
from funcnet.value import frozen

_SIDES = {"left": -2, "right": -1}


@frozen
class SOAP(MomentOptimizer):
    """Adam in the eigenbases of Shampoo, in which the gradients of a matrix are least correlated.

        m ← β₁ m + (1 - β₁) g      v ← β₂ v + (1 - β₂) (Lᵀ g R)²                        L, R the bases of rows and columns
        p ← (1 - η λ) p - η √(1 - β₂ᵗ) / (1 - β₁ᵗ) L (Lᵀ m R / (√v + ε)) Rᵀ
        A ← β₃ A + (1 - β₃) g gᵀ      B ← β₃ B + (1 - β₃) gᵀ g                          -g in place of g with maximize
        every k updates:  L ← Q of A L = Q U      R ← Q of B R = Q U

    The bases start as the identity: the first k steps of a matrix equal Adam's, and so do all steps of leaves that are not
    matrices. Each refresh is one step of orthogonal iteration towards the eigenvectors of A and B. In compiled code and under
    ``vmap``, the bases are computed at each step, but only every k-th result is used.

    Args:
        lr: η, the learning rate, in the unit of p. Like ``betas``, ``shampoo_beta`` and ``weight_decay``, it is a number, a
            schedule of the number of updates made, or a 0-d tensor.
        betas: (β₁, β₂), the decay rates of m and v.
        shampoo_beta: β₃, the decay rate of A and B.
        eps: ε, added to the denominator, in the unit of g.
        weight_decay: λ, in the unit of 1 / ``lr``: each update multiplies p by 1 - η λ.
        precondition_frequency: k, the number of updates between two refreshes of the bases.
        max_size: The longest side of a matrix that gets a basis; longer sides keep the identity.
        donated: Whether params and state may be overwritten; set by ``donate``.
        maximize: Whether to maximize the loss.

    State:
        step: Number of updates made.
        exp_avg: m, like params.
        exp_avg_sq: v, like params.
        covariance_left: A; like the other matrices, it has no elements if the side has no basis.
        covariance_right: B.
        basis_left: L.
        basis_right: R.

    Raises:
        ValueError: If a rate is negative or not finite, if a beta is outside 0 ≤ β < 1, or if another argument is outside its
            bounds.

    References:
        Vyas et al. 2024, "SOAP: Improving and stabilizing Shampoo using Adam", algorithm 3.

    >>> state = SOAP().init({"w": torch.ones(2, 3)})
    >>> state["basis_left"]["w"]
    tensor([[1., 0.],
            [0., 1.]])
    """

    acts_on = "leaves"
    moments = ("exp_avg", "exp_avg_sq", "covariance_left", "covariance_right", "basis_left", "basis_right")
    rates_below = (inf, 1.0, 1.0, 1.0, inf)

    lr: Rate = rate_field(3e-3)
    betas: tuple[Rate, Rate] = rate_field((0.95, 0.95), validator=pair_of_rates())
    shampoo_beta: Rate = rate_field(0.95, below=1.0)
    eps: float = field(default=1e-8, validator=number(0.0))
    weight_decay: Rate = rate_field(0.01)
    precondition_frequency: int = field(default=10, validator=whole(1))
    max_size: int = field(default=10_000, validator=whole(1))
    maximize: bool = field(default=False, kw_only=True, validator=flag)

    @property
    def hyperparameters(self) -> dict[str, Rate]:
        betas = {"beta1": self.betas[0], "beta2": self.betas[1], "shampoo_beta": self.shampoo_beta}
        return {"lr": self.lr, **betas, "weight_decay": self.weight_decay}

    def moment_shape(self, name: str, shape: Size) -> Size:
        if name.startswith("exp_avg"):
            return shape
        side = shape[_SIDES[name.split("_")[1]]] if len(shape) == 2 else 0
        return Size((side, side)) if 0 < side <= self.max_size else Size((0,))

    def initial(self, name: str, p: Tensor) -> Tensor:
        first = super().initial(name, p)
        return (
            torch.eye(len(first), dtype=first.dtype, device=first.device) if name[:5] == "basis" and first.dim() == 2 else first
        )

    def coefficients(self, t: Any, rates: Numbers, scalars: Numbers, columns: Columns) -> tuple[Numbers, Numbers]:
        size = rates["lr"] * (1 - rates["beta2"] ** t) ** 0.5 / (1 - rates["beta1"] ** t)
        return {**rates, "size": size, "is_due": t % self.precondition_frequency == 0}, scalars

    def formula(self, p: Tensor, g: Tensor, m: Tensor, v: Tensor, *bases: Tensor, **now: Any) -> tuple[Tensor, ...]:
        # Copies: matrix products may round differently if the memory is not aligned to the step of the kernel.
        g, *bases = (x.clone() for x in (along(g, self.maximize), *bases))  # type: ignore[assignment]
        left, right = bases[2:]
        m = kernels.lerp(m, g, 1 - now["beta1"])
        rotated = _rotate(g, left, right)
        v = kernels.lerp(v, rotated * rotated, 1 - now["beta2"])
        u = _rotate(_rotate(m, left, right) / (v.sqrt() + self.eps), _transpose(left), _transpose(right))
        return shrink(p, now["lr"], now["weight_decay"]) - now["size"] * u, m, v, *self._refresh(g, *bases, now=now)

    def _refresh(self, g: Tensor, *bases: Tensor, now: Numbers) -> list[Tensor]:
        """Return both covariances, then both bases."""
        covariances = [
            kernels.lerp(a, one, 1 - now["shampoo_beta"]) if a.numel() else a
            for a, one in zip(bases[:2], (g @ g.mT, g.mT @ g) if g.dim() == 2 else (g, g), strict=True)
        ]
        return [*covariances, *[_next_basis(a, q, now["is_due"]) for a, q in zip(covariances, bases[2:], strict=True)]]


def _rotate(x: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Return Lᵀ x R, without the rotation of a side that has no basis."""
    x = left.mT @ x if left.numel() else x
    return x @ right if right.numel() else x


def _transpose(basis: Tensor) -> Tensor:
    return basis.mT if basis.numel() else basis


def _next_basis(covariance: Tensor, basis: Tensor, is_due: Any) -> Tensor:
    """Return the basis after a step of orthogonal iteration, if one is due."""
    if not basis.numel() or is_due is False:
        return basis
    new: Tensor = torch.linalg.qr(covariance @ basis)[0].contiguous()
    return torch.where(is_due > 0, new, basis) if isinstance(is_due, Tensor) else new
