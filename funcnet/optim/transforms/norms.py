"""Gradient transforms that scale by norms of leaves, or by the joint norm of all leaves.

Norms are computed in float64, in which no square of a float32 overflows or vanishes. ‖g‖ and ‖p‖ are the norms of one leaf; rms
is the norm divided by the root of the number of elements.
"""

from collections.abc import Sequence
from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet.errors import number
from funcnet.kernels.leaf_norms import norm, rms, times
from funcnet.kernels.optim import norm_of_all
from funcnet.optim.columns import Columns
from funcnet.optim.moment_rule import Numbers
from funcnet.optim.moments import MomentTransform
from funcnet.optim.rates import Rate, rate_field
from funcnet.value import frozen


@frozen
class ScaleByTrustRatio(MomentTransform):
    """Scale each gradient by the ratio of the norms of param and gradient: ``optax.scale_by_trust_ratio``, the last part of LAMB.

        g ← g c max(‖p‖, μ) / (max(‖g‖, μ) + ε)        g does not change where one of the norms is 0

    Args:
        min_norm: μ, the lower bound of both norms.
        trust_coefficient: c, the norm of the step relative to the norm of p: a number, a schedule of the number of updates made,
            or a 0-d tensor.
        eps: ε, added to the norm of g.

    State:
        step: Number of updates made.

    Raises:
        ValueError: If a number is negative or not finite.

    References:
        You et al. 2020, "Large batch optimization for deep learning: training BERT in 76 minutes", algorithm 2.

    >>> import torch
    >>> transform, params = ScaleByTrustRatio(), {"w": torch.full((4,), 2.0)}
    >>> transform.update({"w": torch.ones(4)}, transform.init(params), params)[0]
    {'w': tensor([2., 2., 2., 2.])}
    """

    acts_on = "leaves"
    moments = ()
    reads_params = True

    min_norm: float = field(default=0.0, validator=number(0.0))
    trust_coefficient: Rate = rate_field(1.0)
    eps: float = field(default=0.0, validator=number(0.0))

    @property
    def hyperparameters(self) -> dict[str, Rate]:
        return {"trust_coefficient": self.trust_coefficient}

    def formula(self, p: Tensor, g: Tensor, *, trust_coefficient: Any) -> tuple[Tensor]:
        of_p, of_g = (norm(x).clamp(min=self.min_norm) for x in (p, g))
        ratio = trust_coefficient * of_p / (of_g + self.eps)
        return (times(g, torch.where((of_p == 0) | (of_g == 0), 1.0, ratio)),)


@frozen
class ScaleByParamBlockNorm(MomentTransform):
    """Scale each gradient by the norm of its param: ``optax.scale_by_param_block_norm``.

        g ← g max(‖p‖, s)

    Args:
        min_scale: s, the smallest factor.

    State:
        step: Number of updates made.

    Raises:
        ValueError: If ``min_scale`` is negative or not finite.

    References:
        ``optax.scale_by_param_block_norm``.

    >>> ScaleByParamBlockNorm(min_scale=0.1)
    ScaleByParamBlockNorm(min_scale=0.1)
    """

    acts_on = "leaves"
    moments = ()
    reads_params = True

    min_scale: float = field(default=1e-3, validator=number(0.0))

    def formula(self, p: Tensor, g: Tensor) -> tuple[Tensor]:
        return (times(g, norm(p).clamp(min=self.min_scale)),)


@frozen
class ScaleByParamBlockRMS(MomentTransform):
    """Scale each gradient by the root mean square of its param, as Adafactor does: ``optax.scale_by_param_block_rms``.

        g ← g max(rms(p), s)

    Args:
        min_scale: s, the smallest factor.

    State:
        step: Number of updates made.

    Raises:
        ValueError: If ``min_scale`` is negative or not finite.

    References:
        Shazeer & Stern 2018, "Adafactor: adaptive learning rates with sublinear memory cost", section 8.

    >>> import torch
    >>> transform, params = ScaleByParamBlockRMS(), {"w": torch.full((4,), 2.0)}
    >>> transform.update({"w": torch.ones(4)}, transform.init(params), params)[0]
    {'w': tensor([2., 2., 2., 2.])}
    """

    acts_on = "leaves"
    moments = ()
    reads_params = True

    min_scale: float = field(default=1e-3, validator=number(0.0))

    def formula(self, p: Tensor, g: Tensor) -> tuple[Tensor]:
        return (times(g, rms(p).clamp(min=self.min_scale)),)


@frozen
class NormalizeByUpdateNorm(MomentTransform):
    """Scale all gradients to a fixed joint norm: ``optax.normalize_by_update_norm``.

        g ← g c / (‖g‖ + ε)        ‖g‖ over all leaves

    Args:
        scale_factor: c, the norm afterwards: a number, a schedule of the number of updates made, or a 0-d tensor.
        eps: ε, added to the norm.

    State:
        step: Number of updates made.

    Raises:
        ValueError: If a number is negative or not finite.

    References:
        ``optax.normalize_by_update_norm``.

    >>> import torch
    >>> transform = NormalizeByUpdateNorm()
    >>> transform.update({"w": torch.full((4,), 5.0)}, transform.init({}), {})[0]
    {'w': tensor([0.5000, 0.5000, 0.5000, 0.5000])}
    """

    moments = ()

    scale_factor: Rate = rate_field(1.0)
    eps: float = field(default=1e-6, validator=number(0.0))

    @property
    def hyperparameters(self) -> dict[str, Rate]:
        return {"scale_factor": self.scale_factor}

    def norm_of_all(self, gs: Sequence[Tensor]) -> Tensor:
        """Return the joint norm of the gradients.

        Args:
            gs: The gradients.
        """
        return norm_of_all(gs)

    def coefficients(self, t: Any, rates: Numbers, scalars: Numbers, columns: Columns) -> tuple[Numbers, Numbers]:
        return {"factor": rates["scale_factor"] / (self.norm_of_all(columns[1]) + self.eps)}, {}

    def formula(self, _: Tensor, g: Tensor, *, factor: Any) -> tuple[Tensor]:
        return (g * factor,)
