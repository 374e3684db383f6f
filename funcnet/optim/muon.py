"""Muon: momentum with orthogonalized matrices."""

from math import sqrt
from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet import tree
from funcnet.contract import Params
from funcnet.errors import describe, flag, number, one_of, valid_if, value_error, whole
from funcnet.kernels import optim as kernels
from funcnet.kernels.orthogonalization import newton_schulz
from funcnet.optim.base import State
from funcnet.optim.columns import is_dense
from funcnet.optim.formulas import shrink
from funcnet.optim.moments import MomentOptimizer
from funcnet.optim.rates import Rate, rate_field
from funcnet.value import frozen

_is_triple = lambda got: isinstance(got, tuple) and len(got) == 3


def _coefficients(value: Any, attribute: Any, got: Any) -> None:
    valid_if(_is_triple, "a tuple of three numbers")(value, attribute, got)
    for one in got:
        number()(value, attribute, one)


@frozen
class Muon(MomentOptimizer):
    """Steps along the orthogonal matrix nearest to the momentum: ``torch.optim.Muon``.

        b ← μ b + (1 - μ) g      u = μ b + (1 - μ) g with nesterov, else u = b
        o = Newton-Schulz of u: every singular value near 1
        p ← (1 - η λ) p - η r o      r = √max(1, rows / columns); 0.2 √max(rows, columns) with "match_rms_adamw"

    Use it for the matrices inside a net. Biases, gains, embeddings and the last layer need another optimizer:

    >>> from funcnet.optim.adam import AdamW
    >>> from funcnet.optim.groups import by_path, is_matrix
    >>> opt = by_path({"embed.*": AdamW(3e-4), "head.*": AdamW(3e-4), is_matrix: Muon(lr=0.02), "*": AdamW(3e-4)})

    Args:
        lr: η, the learning rate, in the unit of p. Like ``weight_decay`` and ``momentum``, it is a number, a schedule of the
            number of updates made, or a 0-d tensor.
        weight_decay: λ, in the unit of 1 / ``lr``: each update multiplies p by 1 - η λ.
        momentum: μ, the decay rate of b.
        nesterov: Whether the step looks ahead along the momentum.
        ns_coefficients: (a, b, c) of a Newton-Schulz step, x ← a x + (b x xᵀ + c (x xᵀ)²) x.
        eps: Lower bound of the norm by which u is divided.
        ns_steps: Number of Newton-Schulz steps, below 100.
        adjust_lr_fn: The choice of r: ``"original"`` or ``None``, or ``"match_rms_adamw"`` for steps of the size of AdamW's.
        ns_dtype: The dtype of the Newton-Schulz steps; ``None`` for the dtype of params. The default is the same as in torch.
        donated: Whether params and state may be overwritten; set by ``donate``.
        stacked: Whether to accept further leading axes, as stacks of matrices with separate steps: the params of ``repeat`` and
            ``ensemble``.

    State:
        step: Number of updates made.
        momentum_buffer: b, like params.

    Raises:
        ValueError: If a rate is negative or not finite, or another argument is outside its bounds; from ``init`` if a leaf is not
            a matrix, with its path.

    References:
        Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"; for "match_rms_adamw" Liu et al. 2025,
        "Muon is scalable for LLM training", section 2.2.

    >>> params = {"weight": torch.eye(2)}
    >>> Muon(lr=0.1, weight_decay=0.0, ns_dtype=None).update(params, Muon().init(params), params)[0]["weight"].diagonal() < 1
    tensor([True, True])
    """

    acts_on = "leaves"
    moments = ("momentum_buffer",)

    lr: Rate = rate_field(1e-3)
    weight_decay: Rate = rate_field(0.1)
    momentum: Rate = rate_field(0.95)
    nesterov: bool = field(default=True, validator=flag)
    ns_coefficients: tuple[float, float, float] = field(default=(3.4445, -4.775, 2.0315), validator=_coefficients)
    eps: float = field(default=1e-7, validator=number(0.0))
    ns_steps: int = field(default=5, validator=[whole(0), number(below=100)])
    adjust_lr_fn: str | None = field(default=None, validator=one_of(None, "original", "match_rms_adamw"))
    ns_dtype: torch.dtype | None = field(
        default=torch.bfloat16, validator=one_of(None, torch.bfloat16, torch.float16, torch.float32, torch.float64)
    )
    stacked: bool = field(default=False, kw_only=True, validator=flag)

    @property
    def hyperparameters(self) -> dict[str, Rate]:
        return {"lr": self.lr, "weight_decay": self.weight_decay, "momentum": self.momentum}

    def init(self, params: Params) -> State:
        for path, p in tree.names(params).items():
            if is_dense(p) and not self._accepts(p):
                raise value_error(self, f"params must have {self._kind} at {path!r}; use by_path for the others", p)
        return super().init(params)

    def formula(self, p: Tensor, g: Tensor, b: Tensor, *, lr: Any, weight_decay: Any, momentum: Any) -> tuple[Tensor, Tensor]:
        if not self._accepts(p):
            raise value_error(self, f"params must be {self._kind}", describe(p))
        b = kernels.lerp(b, g, 1 - momentum)
        u = kernels.lerp(g, b, momentum) if self.nesterov else b
        o = newton_schulz(u.to(self.ns_dtype or u.dtype), self.ns_coefficients, self.eps, self.ns_steps)
        return kernels.plus(shrink(p, lr, weight_decay), o, -lr * self._ratio(p)), b

    def _ratio(self, p: Tensor) -> float:
        rows, columns = p.shape[-2:]
        if self.adjust_lr_fn == "match_rms_adamw":
            return 0.2 * sqrt(max(rows, columns))
        return sqrt(max(1.0, rows / max(columns, 1)))

    def _accepts(self, p: Tensor) -> bool:
        return p.dim() == 2 or (self.stacked and p.dim() > 2)

    @property
    def _kind(self) -> str:
        return "matrices, or stacks of them," if self.stacked else "a matrix, of two axes,"
