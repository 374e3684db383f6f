"""Instance normalization: shift and scale each channel of each row to mean 0 and variance 1, then map it affinely.

Over the m elements of a channel of a row of x (N, channels, ...) or (channels, ...), with r = 1 / √(σ² + ε):

    μ  = Σ x / m       σ² = Σ (x - μ)² / m       x̂ = (x - μ) r       y = γ x̂ + β
    gβ = Σ gy          gγ = Σ gy x̂               over rows and elements
    gx = r (g - Σ g / m - x̂ Σ g x̂ / m)           with g = γ gy, over the channel of the row

With running statistics, which do not depend on x, gx = γ r gy: see ``running_instance_norm``.
"""

from abc import abstractmethod
from typing import Any

from attrs import field
from torch import Tensor

from funcnet.checks import check_gy
from funcnet.contract import Grads, Layer, Params, Rng
from funcnet.errors import flag, value_error
from funcnet.kernels import batch_norm as kernels
from funcnet.kernels.norm import group_norm, group_norm_backward
from funcnet.layers.norm import params as norm_params
from funcnet.layers.norm.running_instance_norm import (
    PerRowNorm,
    RunningInstanceNorm,
    RunningInstanceNorm1d,
    RunningInstanceNorm2d,
    RunningInstanceNorm3d,
)
from funcnet.value import frozen

Cache = tuple[Tensor, Tensor, Tensor]


@frozen
class InstanceNorm(PerRowNorm):
    """Instance normalization with the statistics of each row; a subclass sets the number of axes."""

    momentum: float | None = field(default=0.1, validator=norm_params.momentum_or_none)
    affine: bool = field(default=False, validator=flag)
    track_running_stats: bool = field(default=False, validator=flag)
    bias: bool = field(default=True, kw_only=True, validator=flag)

    @property
    @abstractmethod
    def _running(self) -> "type[RunningInstanceNorm]":
        """The class that normalizes x with running statistics, in inference."""

    def apply(self, params: Any, x: Tensor, rng: Rng = None) -> tuple[Tensor, Cache]:
        self._require_valid(params, x)
        if x.shape[-self._space :].numel() == 1:
            raise value_error(self, "x must have more than one value per channel and row", f"x of shape {tuple(x.shape)}")
        n: Any = self.num_features
        y, kept, mean, r = group_norm(self._batch(x), n, params.get("weight"), params.get("bias"), self.eps)
        return y.reshape(x.shape), (kept if x.dim() == kept.dim() else kept[0], mean, r)

    def vjp(self, params: Params, cache: Cache, gy: Tensor) -> tuple[Grads, Tensor]:
        return self._back(params, cache, gy, [True, self.affine, self.affine and self.bias])

    def grads(self, params: Params, cache: Cache, gy: Tensor) -> Grads:
        return self._back(params, cache, gy, [False, self.affine, self.affine and self.bias])[0]

    def input_grad(self, params: Params, cache: Cache, gy: Tensor) -> Tensor:
        return self._back(params, cache, gy, [True, False, False])[1]

    def _back(self, params: Params, cache: Cache, gy: Tensor, mask: list[bool]) -> tuple[Params, Tensor]:
        x, mean, r = cache
        n: Any = self.num_features
        rows = self._batch(check_gy(self, gy, x.shape, x)), self._batch(x)
        (w,) = norm_params.backward_params(self, params, n)
        gx, gw, gb = group_norm_backward(*rows, n, (mean, r), w, mask)
        return norm_params.gparams(params, gw, gb), gx.reshape(gy.shape) if mask[0] else gx

    def update_stats(self, params: Any, cache: Cache) -> Any:
        x, mean, r = cache
        if not self.track_running_stats or not x.numel():
            return params
        running = norm_params.running_stats(self, params)
        batch, counted = (mean.mean(0), kernels.variance(r, self.eps).mean(0)), {}
        rate: Any = self.momentum
        if rate is None:
            counted = {"num_batches_tracked": norm_params.batch_count(self, params, mean) + 1}
            rate = 1 / counted["num_batches_tracked"].to(mean.dtype)
        moved = kernels.moved(running, batch, rate, x.shape[-self._space :].numel())
        return {**params, **dict(zip(norm_params.STATS[:2], moved, strict=True)), **counted}

    def inference(self) -> Layer:
        return self._running(self.num_features, self.eps, self.affine, bias=self.bias) if self.track_running_stats else self

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        return norm_params.shapes_of_channels(self.num_features, self.affine, self.bias, self.track_running_stats)


@frozen
class InstanceNorm1d(InstanceNorm):
    """Normalize each channel of each row of (N, channels, length) by itself.

        μ  = Σ x / m       σ² = Σ (x - μ)² / m       r = 1 / √(σ² + ε)
        y  = γ x̂ + β       x̂ = (x - μ) r             over the m elements of a channel of a row
        gβ = Σ gy          gγ = Σ gy x̂               over rows and elements
        gx = r (g - Σ g / m - x̂ Σ g x̂ / m)           with g = γ gy, over the channel of the row

    y does not depend on the running statistics, which exist with ``track_running_stats=True``. ``update_stats(params, cache)``
    moves them, and ``inference()`` returns the layer that normalizes with them:

        running ← (1 - momentum) running + momentum batch       with the mean over rows of μ and of the unbiased variance

    Args:
        num_features: Number of channels, the size of axis -2 of x; ``None`` to infer it with ``infer_sizes``.
        eps: Added to the variance before the square root, to avoid division by 0.
        momentum: Weight of the new batch in the running statistics; ``None`` for the mean over all batches
            (torch then never moves them).
        affine: Whether to learn the scale γ and the shift β of each channel.
        track_running_stats: Whether to keep running statistics; without them ``inference()`` also uses the statistics of each
            row.
        bias: Whether to learn β; without effect if ``affine=False``.

    Shape:
        x (N, num_features, length) or (num_features, length) → y of the same shape

    Params:
        weight: γ (num_features,), ones; with ``affine=True``.
        bias: β (num_features,), zeros; with ``affine=True`` and ``bias=True``.
        running_mean: (num_features,), zeros; with ``track_running_stats=True``, like the next two. They are not trained.
        running_var: (num_features,), ones.
        num_batches_tracked: (), int64, 0; counts only with ``momentum=None`` (torch's always stays 0).

    Cache:
        ``x``, copied if it is not contiguous; μ and r of each channel of each row.

    Raises:
        ValueError: If a channel of a row has only one value, since its variance is 0.

    References:
        Ulyanov, Vedaldi & Lempitsky 2016; names and defaults as in ``torch.nn.InstanceNorm1d``.

    >>> InstanceNorm1d(3, affine=True).init(0)
    {'weight': tensor([1., 1., 1.]), 'bias': tensor([0., 0., 0.])}
    """

    _space = 1
    _running = RunningInstanceNorm1d


@frozen
class InstanceNorm2d(InstanceNorm):
    """Normalize each channel of each row of (N, channels, height, width) by itself.

        μ  = Σ x / m       σ² = Σ (x - μ)² / m       r = 1 / √(σ² + ε)
        y  = γ x̂ + β       x̂ = (x - μ) r             over the m elements of a channel of a row
        gβ = Σ gy          gγ = Σ gy x̂               over rows and elements
        gx = r (g - Σ g / m - x̂ Σ g x̂ / m)           with g = γ gy, over the channel of the row

    y does not depend on the running statistics, which exist with ``track_running_stats=True``. ``update_stats(params, cache)``
    moves them, and ``inference()`` returns the layer that normalizes with them:

        running ← (1 - momentum) running + momentum batch       with the mean over rows of μ and of the unbiased variance

    Args:
        num_features: Number of channels, the size of axis -3 of x; ``None`` to infer it with ``infer_sizes``.
        eps: Added to the variance before the square root, to avoid division by 0.
        momentum: Weight of the new batch in the running statistics; ``None`` for the mean over all batches
            (torch then never moves them).
        affine: Whether to learn the scale γ and the shift β of each channel.
        track_running_stats: Whether to keep running statistics; without them ``inference()`` also uses the statistics of each
            row.
        bias: Whether to learn β; without effect if ``affine=False``.

    Shape:
        x (N, num_features, height, width) or (num_features, height, width) → y of the same shape

    Params:
        weight: γ (num_features,), ones; with ``affine=True``.
        bias: β (num_features,), zeros; with ``affine=True`` and ``bias=True``.
        running_mean: (num_features,), zeros; with ``track_running_stats=True``, like the next two. They are not trained.
        running_var: (num_features,), ones.
        num_batches_tracked: (), int64, 0; counts only with ``momentum=None`` (torch's always stays 0).

    Cache:
        ``x``, copied if it is not contiguous; μ and r of each channel of each row.

    Raises:
        ValueError: If a channel of a row has only one value, since its variance is 0.

    References:
        Ulyanov, Vedaldi & Lempitsky 2016; names and defaults as in ``torch.nn.InstanceNorm2d``.

    >>> InstanceNorm2d(3, track_running_stats=True).inference()
    RunningInstanceNorm2d(num_features=3)
    """

    _space = 2
    _running = RunningInstanceNorm2d


@frozen
class InstanceNorm3d(InstanceNorm):
    """Normalize each channel of each row of (N, channels, depth, height, width) by itself.

        μ  = Σ x / m       σ² = Σ (x - μ)² / m       r = 1 / √(σ² + ε)
        y  = γ x̂ + β       x̂ = (x - μ) r             over the m elements of a channel of a row
        gβ = Σ gy          gγ = Σ gy x̂               over rows and elements
        gx = r (g - Σ g / m - x̂ Σ g x̂ / m)           with g = γ gy, over the channel of the row

    y does not depend on the running statistics, which exist with ``track_running_stats=True``. ``update_stats(params, cache)``
    moves them, and ``inference()`` returns the layer that normalizes with them:

        running ← (1 - momentum) running + momentum batch       with the mean over rows of μ and of the unbiased variance

    Args:
        num_features: Number of channels, the size of axis -4 of x; ``None`` to infer it with ``infer_sizes``.
        eps: Added to the variance before the square root, to avoid division by 0.
        momentum: Weight of the new batch in the running statistics; ``None`` for the mean over all batches
            (torch then never moves them).
        affine: Whether to learn the scale γ and the shift β of each channel.
        track_running_stats: Whether to keep running statistics; without them ``inference()`` also uses the statistics of each
            row.
        bias: Whether to learn β; without effect if ``affine=False``.

    Shape:
        x (N, num_features, depth, height, width) or (num_features, depth, height, width) → y of the same shape

    Params:
        weight: γ (num_features,), ones; with ``affine=True``.
        bias: β (num_features,), zeros; with ``affine=True`` and ``bias=True``.
        running_mean: (num_features,), zeros; with ``track_running_stats=True``, like the next two. They are not trained.
        running_var: (num_features,), ones.
        num_batches_tracked: (), int64, 0; counts only with ``momentum=None`` (torch's always stays 0).

    Cache:
        ``x``, copied if it is not contiguous; μ and r of each channel of each row.

    Raises:
        ValueError: If a channel of a row has only one value, since its variance is 0.

    References:
        Ulyanov, Vedaldi & Lempitsky 2016; names and defaults as in ``torch.nn.InstanceNorm3d``.

    >>> InstanceNorm3d(3, track_running_stats=True).inference()
    RunningInstanceNorm3d(num_features=3)
    """

    _space = 3
    _running = RunningInstanceNorm3d
