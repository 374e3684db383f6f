"""Instance normalization with running statistics, and the base class that it shares with ``instance_norm``.

    y  = γ x̂ + β       x̂ = (x - μ) r       r = 1 / √(σ² + ε)
    gβ = Σ gy          gγ = Σ gy x̂         gx = γ r gy            sums over rows and positions

μ and σ² are params here, not functions of x, and get no gradient.
"""

from abc import abstractmethod
from typing import Any

from attrs import field
from torch import Tensor

from funcnet.checks import Misfit, axes_complaint, check_gy, require_params
from funcnet.contract import Grads, Layer, Params, Rng, Size
from funcnet.errors import flag, size_or_none
from funcnet.kernels import batch_norm as kernels
from funcnet.layers.norm import params as norm_params
from funcnet.random.keys import Key
from funcnet.value import frozen


@frozen
class PerRowNorm(Layer):
    """Base of instance normalizations: the number of axes after the channels, and checks of x and params."""

    undecayed = ("weight",)

    num_features: Size = field(validator=size_or_none)
    eps: float = field(default=1e-5, validator=norm_params.positive)

    @property
    @abstractmethod
    def _space(self) -> int:
        """The number of axes after the channels."""

    @property
    def inferred_sizes(self) -> dict[str, int]:
        return {"num_features": -1 - self._space}

    def init(self, rng: Key | int) -> Params:
        return norm_params.initialize(rng, self)

    def _batch(self, x: Tensor) -> Tensor:
        """Return x with a batch axis."""
        return x if x.dim() == self._space + 2 else x.unsqueeze(0)

    def _require_valid(self, params: Any, x: Tensor) -> None:
        """Raise ``Misfit`` if sizes or dtypes do not fit: the kernels trust sizes, and accept mixed dtypes."""
        require_params(self, params)
        if x.dim() - self._space not in (1, 2) or x.size(-1 - self._space) != self.num_features or not x.is_floating_point():
            raise Misfit
        if any([p.dtype != x.dtype for p in params.values() if p.dim()]):  # noqa: C419
            raise Misfit

    @abstractmethod
    def param_shapes(self) -> dict[str, tuple[int, ...]]: ...

    def complaint(self, x: Tensor) -> str | None:
        axes = "num_features" + norm_params.SPACE[self._space]
        return axes_complaint(self, x, f"N, {axes}", axes)


@frozen
class RunningInstanceNorm(PerRowNorm):
    """Instance normalization with the running statistics; a subclass sets the number of axes."""

    channelwise_affine = True

    non_trainable = ("running_mean", "running_var")

    affine: bool = field(default=False, validator=flag)
    bias: bool = field(default=True, kw_only=True, validator=flag)

    def apply(self, params: Any, x: Tensor, rng: Rng = None) -> tuple[Tensor, Tensor]:
        self._require_valid(params, x)
        w, b, moments = params.get("weight"), params.get("bias"), self._moments(params)
        return kernels.batch_norm(self._batch(x), w, b, self.eps, moments)[0].reshape(x.shape), x

    def vjp(self, params: Params, cache: Tensor, gy: Tensor) -> tuple[Grads, Tensor]:
        rows = self._batch(check_gy(self, gy, cache.shape, cache)), self._batch(cache)
        w, mean, var = norm_params.backward_params(self, params, self.num_features, running=True)
        gx, gw, gb = kernels.batch_norm_backward(*rows, w, self.eps, running=(mean, var))
        return norm_params.gparams(params, gw, gb), gx.reshape(gy.shape)

    def _moments(self, params: Params) -> tuple[Tensor, Tensor]:
        return params["running_mean"], params["running_var"]

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        return norm_params.shapes_of_channels(self.num_features, self.affine, self.bias, tracked=True)


@frozen
class RunningInstanceNorm1d(RunningInstanceNorm):
    """Normalize each channel of (N, channels, length) with its running statistics.

        y  = γ x̂ + β       x̂ = (x - μ) r       r = 1 / √(σ² + ε)
        gβ = Σ gy          gγ = Σ gy x̂         gx = γ r gy            sums over rows and positions

    This is the layer that ``InstanceNorm1d(..., track_running_stats=True).inference()`` returns, with the same params; μ and σ²
    are ``running_mean`` and ``running_var``.

    Args:
        num_features: Number of channels, the size of axis -2 of x; ``None`` to infer it with ``infer_sizes``.
        eps: Added to the variance before the square root, to avoid division by 0.
        affine: Whether to learn the scale γ and the shift β of each channel.
        bias: Whether to learn β; without effect if ``affine=False``.

    Shape:
        x (N, num_features, length) or (num_features, length) → y of the same shape

    Params:
        weight: γ (num_features,), ones; with ``affine=True``.
        bias: β (num_features,), zeros; with ``affine=True`` and ``bias=True``.
        running_mean: (num_features,), zeros; not trained, like the next two: the gradient is ``None``.
        running_var: (num_features,), ones.
        num_batches_tracked: (), int64, 0.

    Cache:
        ``x``, not copied.

    References:
        ``torch.nn.InstanceNorm1d`` in evaluation mode.
    """

    _space = 1


@frozen
class RunningInstanceNorm2d(RunningInstanceNorm):
    """Normalize each channel of (N, channels, height, width) with its running statistics.

        y  = γ x̂ + β       x̂ = (x - μ) r       r = 1 / √(σ² + ε)
        gβ = Σ gy          gγ = Σ gy x̂         gx = γ r gy            sums over rows and positions

    This is the layer that ``InstanceNorm2d(..., track_running_stats=True).inference()`` returns, with the same params; μ and σ²
    are ``running_mean`` and ``running_var``.

    Args:
        num_features: Number of channels, the size of axis -3 of x; ``None`` to infer it with ``infer_sizes``.
        eps: Added to the variance before the square root, to avoid division by 0.
        affine: Whether to learn the scale γ and the shift β of each channel.
        bias: Whether to learn β; without effect if ``affine=False``.

    Shape:
        x (N, num_features, height, width) or (num_features, height, width) → y of the same shape

    Params:
        weight: γ (num_features,), ones; with ``affine=True``.
        bias: β (num_features,), zeros; with ``affine=True`` and ``bias=True``.
        running_mean: (num_features,), zeros; not trained, like the next two: the gradient is ``None``.
        running_var: (num_features,), ones.
        num_batches_tracked: (), int64, 0.

    Cache:
        ``x``, not copied.

    References:
        ``torch.nn.InstanceNorm2d`` in evaluation mode.
    """

    _space = 2


@frozen
class RunningInstanceNorm3d(RunningInstanceNorm):
    """Normalize each channel of (N, channels, depth, height, width) with its running statistics.

        y  = γ x̂ + β       x̂ = (x - μ) r       r = 1 / √(σ² + ε)
        gβ = Σ gy          gγ = Σ gy x̂         gx = γ r gy            sums over rows and positions

    This is the layer that ``InstanceNorm3d(..., track_running_stats=True).inference()`` returns, with the same params; μ and σ²
    are ``running_mean`` and ``running_var``.

    Args:
        num_features: Number of channels, the size of axis -4 of x; ``None`` to infer it with ``infer_sizes``.
        eps: Added to the variance before the square root, to avoid division by 0.
        affine: Whether to learn the scale γ and the shift β of each channel.
        bias: Whether to learn β; without effect if ``affine=False``.

    Shape:
        x (N, num_features, depth, height, width) or (num_features, depth, height, width) → y of the same shape

    Params:
        weight: γ (num_features,), ones; with ``affine=True``.
        bias: β (num_features,), zeros; with ``affine=True`` and ``bias=True``.
        running_mean: (num_features,), zeros; not trained, like the next two: the gradient is ``None``.
        running_var: (num_features,), ones.
        num_batches_tracked: (), int64, 0.

    Cache:
        ``x``, not copied.

    References:
        ``torch.nn.InstanceNorm3d`` in evaluation mode.
    """

    _space = 3
