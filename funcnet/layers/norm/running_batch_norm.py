"""Batch normalization with running statistics, and the base class that it shares with ``batch_norm``.

    y  = γ x̂ + β       x̂ = (x - μ) r       r = 1 / √(σ² + ε)
    gβ = Σ gy          gγ = Σ gy x̂         gx = γ r gy            sums over rows and positions

μ and σ² are params here, not functions of x. They get no gradient, and each row of y depends only on its own row of x.
"""

from abc import abstractmethod
from typing import Any

from attrs import field
from torch import Tensor

from funcnet.checks import Misfit, axes_complaint, check_gy
from funcnet.contract import Grads, Layer, Params, Rng, Size
from funcnet.errors import flag, size_or_none
from funcnet.kernels import batch_norm as kernels
from funcnet.layers.norm import params as norm_params
from funcnet.random.keys import Key
from funcnet.value import frozen


@frozen
class ChannelNorm(Layer):
    """Base of batch normalizations: the number of channels, and the possible numbers of axes of x."""

    undecayed = ("weight",)

    num_features: Size = field(validator=size_or_none)
    eps: float = field(default=1e-5, validator=norm_params.positive)

    @property
    @abstractmethod
    def _dims(self) -> tuple[int, ...]:
        """The numbers of axes that x can have."""

    @property
    def inferred_sizes(self) -> dict[str, int]:
        return {"num_features": 1}

    def init(self, rng: Key | int) -> Params:
        return norm_params.initialize(rng, self)

    def complaint(self, x: Tensor) -> str | None:
        return axes_complaint(self, x, *["N, num_features" + norm_params.SPACE[dim - 2] for dim in self._dims])


def weight_and_bias(layer: Any, params: Any, x: Tensor, stats: int) -> tuple[Any, Any]:
    """Return weight and bias, after checking the sizes that the kernel trusts: it would read past the end of shorter tensors."""
    n, affine = layer.num_features, layer.affine
    found = params["weight"] if affine else None, params["bias"] if affine and layer.bias else None
    if x.dim() not in layer._dims or x.shape[1] != n or len(params) != affine * (1 + layer.bias) + stats:
        raise Misfit
    for name, leaf in params.items():
        if leaf.numel() != n and name != "num_batches_tracked":
            raise Misfit
    w, b = found
    if w is not None and (w.dtype is not x.dtype or (b is not None and b.dtype is not x.dtype)):
        norm_params.require_dtypes(x, w, b)  # the condition saves 0.3 µs, the time of a call
    return found


@frozen
class RunningBatchNorm(ChannelNorm):
    """Batch normalization with the running statistics; a subclass sets the number of axes."""

    channelwise_affine = True

    non_trainable = ("running_mean", "running_var")

    affine: bool = field(default=True, validator=flag)
    bias: bool = field(default=True, kw_only=True, validator=flag)

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Tensor]:
        w, b = weight_and_bias(self, params, x, 3)
        mean, var = self._moments(params)
        if mean.dtype is not x.dtype or var.dtype is not x.dtype:
            norm_params.require_dtypes(x, mean, var)
        return kernels.batch_norm(x, w, b, self.eps, (mean, var))[0], x

    def vjp(self, params: Params, cache: Tensor, gy: Tensor) -> tuple[Grads, Tensor]:
        gy = check_gy(self, gy, cache.shape, cache)
        w, mean, var = norm_params.backward_params(self, params, self.num_features, running=True)
        gx, gw, gb = kernels.batch_norm_backward(gy, cache, w, self.eps, running=(mean, var))
        return norm_params.gparams(params, gw, gb), gx

    def _moments(self, params: Params) -> tuple[Tensor, Tensor]:
        return params["running_mean"], params["running_var"]

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        return norm_params.shapes_of_channels(self.num_features, self.affine, self.bias, tracked=True)


@frozen
class RunningBatchNorm1d(RunningBatchNorm):
    """Normalize each channel of (N, channels) or (N, channels, length) with its running statistics.

        y  = γ x̂ + β       x̂ = (x - μ) r       r = 1 / √(σ² + ε)
        gβ = Σ gy          gγ = Σ gy x̂         gx = γ r gy            sums over rows and positions

    This is the layer that ``BatchNorm1d(...).inference()`` returns, with the same params; μ and σ² are ``running_mean`` and
    ``running_var``. It can be trained too: γ and β then adapt, while the statistics stay fixed and rows stay independent.

    Args:
        num_features: Number of channels, the size of axis 1 of x; ``None`` to infer it with ``infer_sizes``.
        eps: Added to the variance before the square root, to avoid division by 0.
        affine: Whether to learn the scale γ and the shift β of each channel.
        bias: Whether to learn β; without effect if ``affine=False``.

    Shape:
        x (N, num_features) or (N, num_features, length) → y of the same shape

    Params:
        weight: γ (num_features,), ones; absent with ``affine=False``.
        bias: β (num_features,), zeros; absent with ``affine=False`` or ``bias=False``.
        running_mean: (num_features,), zeros; not trained, like the next two: the gradient is ``None``.
        running_var: (num_features,), ones.
        num_batches_tracked: (), int64, 0.

    Cache:
        ``x``, not copied.

    References:
        Ioffe & Szegedy 2015, algorithm 2, line 11.
    """

    _dims = (2, 3)


@frozen
class RunningBatchNorm2d(RunningBatchNorm):
    """Normalize each channel of (N, channels, height, width) with its running statistics.

        y  = γ x̂ + β       x̂ = (x - μ) r       r = 1 / √(σ² + ε)
        gβ = Σ gy          gγ = Σ gy x̂         gx = γ r gy            sums over rows and positions

    This is the layer that ``BatchNorm2d(...).inference()`` returns, with the same params; μ and σ² are ``running_mean`` and
    ``running_var``. It can be trained too: γ and β then adapt, while the statistics stay fixed and rows stay independent.

    Args:
        num_features: Number of channels, the size of axis 1 of x; ``None`` to infer it with ``infer_sizes``.
        eps: Added to the variance before the square root, to avoid division by 0.
        affine: Whether to learn the scale γ and the shift β of each channel.
        bias: Whether to learn β; without effect if ``affine=False``.

    Shape:
        x (N, num_features, height, width) → y of the same shape

    Params:
        weight: γ (num_features,), ones; absent with ``affine=False``.
        bias: β (num_features,), zeros; absent with ``affine=False`` or ``bias=False``.
        running_mean: (num_features,), zeros; not trained, like the next two: the gradient is ``None``.
        running_var: (num_features,), ones.
        num_batches_tracked: (), int64, 0.

    Cache:
        ``x``, not copied.

    References:
        Ioffe & Szegedy 2015, algorithm 2, line 11.
    """

    _dims = (4,)


@frozen
class RunningBatchNorm3d(RunningBatchNorm):
    """Normalize each channel of (N, channels, depth, height, width) with its running statistics.

        y  = γ x̂ + β       x̂ = (x - μ) r       r = 1 / √(σ² + ε)
        gβ = Σ gy          gγ = Σ gy x̂         gx = γ r gy            sums over rows and positions

    This is the layer that ``BatchNorm3d(...).inference()`` returns, with the same params; μ and σ² are ``running_mean`` and
    ``running_var``. It can be trained too: γ and β then adapt, while the statistics stay fixed and rows stay independent.

    Args:
        num_features: Number of channels, the size of axis 1 of x; ``None`` to infer it with ``infer_sizes``.
        eps: Added to the variance before the square root, to avoid division by 0.
        affine: Whether to learn the scale γ and the shift β of each channel.
        bias: Whether to learn β; without effect if ``affine=False``.

    Shape:
        x (N, num_features, depth, height, width) → y of the same shape

    Params:
        weight: γ (num_features,), ones; absent with ``affine=False``.
        bias: β (num_features,), zeros; absent with ``affine=False`` or ``bias=False``.
        running_mean: (num_features,), zeros; not trained, like the next two: the gradient is ``None``.
        running_var: (num_features,), ones.
        num_batches_tracked: (), int64, 0.

    Cache:
        ``x``, not copied.

    References:
        Ioffe & Szegedy 2015, algorithm 2, line 11.
    """

    _dims = (5,)
