"""Gradient transforms that clip each leaf, or each unit of a leaf, by its size.

A threshold is a number, a schedule or a 0-d tensor. Norms are computed in float64, in which no square of a float32 overflows.
"""

from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet.errors import number
from funcnet.kernels.leaf_norms import norm, rms, times, unit_norms
from funcnet.optim.moments import MomentTransform
from funcnet.optim.rates import Rate, limit_field
from funcnet.value import frozen

_MARGIN = 1e-6
"""The number that ``torch.nn.utils.clip_grad_norm_`` adds to a norm."""


@frozen
class ClipByNorm(MomentTransform):
    """Scale each gradient separately to limit its norm.

        g ← g min(1, c / (‖g‖ + 10⁻⁶))        ‖g‖ of each leaf

    Args:
        max_norm: c, the largest norm, in the unit of g: a number, a schedule of the number of updates made, or a 0-d tensor.

    State:
        step: Number of updates made.

    Raises:
        ValueError: If ``max_norm`` is not a finite number above 0.

    References:
        ``torch.nn.utils.clip_grad_norm_``, for one leaf at a time.

    >>> import torch
    >>> transform = ClipByNorm(1.0)
    >>> transform.update({"a": torch.full((4,), 5.0), "b": torch.full((4,), 0.1)}, transform.init({}), {})[0]
    {'a': tensor([0.5000, 0.5000, 0.5000, 0.5000]), 'b': tensor([0.1000, 0.1000, 0.1000, 0.1000])}
    """

    acts_on = "leaves"
    moments = ()

    max_norm: Rate = limit_field()

    @property
    def hyperparameters(self) -> dict[str, Rate]:
        return {"max_norm": self.max_norm}

    def formula(self, _: Tensor, g: Tensor, *, max_norm: Any) -> tuple[Tensor]:
        return (times(g, (max_norm / (norm(g) + _MARGIN)).clamp(max=1.0)),)


@frozen
class ClipByBlockRMS(MomentTransform):
    """Scale each gradient separately to limit its root mean square: ``optax.clip_by_block_rms``.

        g ← g / max(1, rms(g) / d)

    Args:
        threshold: d, the largest root mean square, in the unit of g: a number, a schedule of the number of updates made, or a 0-d
            tensor.

    State:
        step: Number of updates made.

    Raises:
        ValueError: If ``threshold`` is not a finite number above 0.

    References:
        Shazeer & Stern 2018, "Adafactor: adaptive learning rates with sublinear memory cost", section 6.

    >>> import torch
    >>> transform = ClipByBlockRMS(1.0)
    >>> transform.update({"w": torch.tensor([3.0, -3.0])}, transform.init({}), {})[0]
    {'w': tensor([ 1., -1.])}
    """

    acts_on = "leaves"
    moments = ()

    threshold: Rate = limit_field()

    @property
    def hyperparameters(self) -> dict[str, Rate]:
        return {"threshold": self.threshold}

    def formula(self, _: Tensor, g: Tensor, *, threshold: Any) -> tuple[Tensor]:
        size = rms(g)
        return (times(g, torch.where(size > threshold, threshold / size, 1.0)),)


@frozen
class AdaptiveClip(MomentTransform):
    """Clip the gradient of each unit to a fraction of the norm of the unit: ``optax.adaptive_grad_clip``.

        g ← g c max(‖p‖, ε) / ‖g‖  where ‖g‖ > c max(‖p‖, ε)

    Norms are computed for each unit: one entry of axis 0, which is an output of ``Linear`` or of a convolution. A vector is one
    unit.

    Args:
        clipping: c, the largest ratio of the norms: a number, a schedule of the number of updates made, or a 0-d tensor.
        eps: ε, the lower bound of the norm of p, so that zeros can be trained.

    State:
        step: Number of updates made.

    Raises:
        ValueError: If ``clipping`` is not a finite number above 0, or if ``eps`` is negative.

    References:
        Brock, De, Smith & Simonyan 2021, "High-performance large-scale image recognition without normalization", equation 3.

    >>> import torch
    >>> transform, params = AdaptiveClip(0.1), {"w": torch.ones(2, 4)}
    >>> transform.update({"w": torch.tensor([[1.0], [0.01]]).expand(2, 4)}, transform.init(params), params)[0]
    {'w': tensor([[0.1000, 0.1000, 0.1000, 0.1000],
            [0.0100, 0.0100, 0.0100, 0.0100]])}
    """

    acts_on = "leaves"
    moments = ()
    reads_params = True

    clipping: Rate = limit_field()
    eps: float = field(default=1e-3, validator=number(0.0))

    @property
    def hyperparameters(self) -> dict[str, Rate]:
        return {"clipping": self.clipping}

    def formula(self, p: Tensor, g: Tensor, *, clipping: Any) -> tuple[Tensor]:
        size, most = unit_norms(g), clipping * unit_norms(p).clamp(min=self.eps)
        return (g * torch.where(size > most, most / size, 1.0).to(g.dtype),)
