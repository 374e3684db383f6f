"""Batch normalization: shift and scale each channel to mean 0 and variance 1 over the batch, then map it affinely.

Over the m elements of a channel of x (N, channels, ...), in all rows and positions, with r = 1 / √(σ² + ε):

    μ  = Σ x / m       σ² = Σ (x - μ)² / m       x̂ = (x - μ) r       y = γ x̂ + β
    gβ = Σ gy          gγ = Σ gy x̂
    gx = γ r (gy - gβ / m - x̂ gγ / m)

In training the statistics depend on x, and gx has two more terms than with running statistics (``running_batch_norm``).
"""

from abc import abstractmethod
from typing import Any

from attrs import field
from torch import Tensor

from funcnet.checks import check_gy
from funcnet.contract import Cache, Grads, Layer, Params, Rng
from funcnet.errors import flag, value_error
from funcnet.kernels import batch_norm as kernels
from funcnet.layers.norm import params as norm_params
from funcnet.layers.norm.running_batch_norm import (
    ChannelNorm,
    RunningBatchNorm,
    RunningBatchNorm1d,
    RunningBatchNorm2d,
    RunningBatchNorm3d,
    weight_and_bias,
)
from funcnet.plans import Unchecked
from funcnet.value import frozen


@frozen
class BatchNorm(ChannelNorm):
    """Batch normalization with the statistics of the batch; a subclass sets the number of axes."""

    momentum: float | None = field(default=0.1, validator=norm_params.momentum_or_none)
    affine: bool = field(default=True, validator=flag)
    track_running_stats: bool = field(default=True, validator=flag)
    bias: bool = field(default=True, kw_only=True, validator=flag)

    batch_dependent = True

    @property
    def has_running_stats(self) -> bool:
        return self.track_running_stats

    @property
    @abstractmethod
    def _running(self) -> "type[RunningBatchNorm]":
        """The class that normalizes x with running statistics, in inference."""

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Cache]:
        w, b = weight_and_bias(self, params, x, 3 * self.track_running_stats)
        if x.numel() == self.num_features:
            raise value_error(self, "a batch must have more than one value per channel", f"x of shape {tuple(x.shape)}")
        if not self.track_running_stats or self.momentum is None:
            y, mean, r = kernels.batch_norm(x, w, b, self.eps)
            return y, (x, mean, r, None, None)
        running = params["running_mean"], params["running_var"]
        y, mean, r, ahead = kernels.batch_norm_ahead(x, w, b, self.eps, running, self.momentum)
        return y, (x, mean, r, running, ahead)

    def vjp(self, params: Params, cache: Cache, gy: Tensor) -> tuple[Grads, Tensor]:
        x, mean, r, _, _ = cache
        gy, (w,) = check_gy(self, gy, x.shape, x), norm_params.backward_params(self, params, self.num_features)
        gx, gw, gb = kernels.batch_norm_backward(gy, x, w, self.eps, batch=(mean, r))
        return norm_params.gparams(params, gw, gb), gx

    def unchecked(self, params: Params, cache: Cache) -> Unchecked | None:
        """Return the unchecked verbs for float32 params whose running statistics the kernel updates."""
        x, _, r, running, ahead = cache
        is_whole = self.affine and self.bias and ahead is not None and r.dtype is x.dtype and {*params} == _WHOLE
        if not is_whole or self.momentum is None or not kernels.serves_unchecked(x, params["weight"], running):
            return None
        return _unchecked(self.eps, self.momentum, kernels.forward_of(x), kernels.backward_of(x))

    def update_stats(self, params: Any, cache: Cache) -> Any:
        if not self.track_running_stats:
            return params
        _, like, _, before, ahead = cache
        count = norm_params.batch_count(self, params, like) + 1
        if ahead is None or params["running_mean"] is not before[0] or params["running_var"] is not before[1]:
            ahead = self._moved(norm_params.running_stats(self, params), cache, count)
        return {**params, "running_mean": ahead[0], "running_var": ahead[1], "num_batches_tracked": count}

    def _moved(self, running: tuple[Tensor, Tensor], cache: Cache, count: Tensor) -> tuple[Tensor, Tensor]:
        x, mean, r, _, ahead = cache
        if ahead is not None and self.momentum is not None:  # the same kernel gives equal bits for equal statistics
            again = kernels.batch_norm_ahead(x, None, None, self.eps, running, self.momentum)[3]
            if again is not None:
                return again
        rate: Any = 1 / count.to(mean.dtype) if self.momentum is None else self.momentum
        return kernels.moved(running, (mean, kernels.variance(r, self.eps)), rate, x.numel() // self.num_features)

    def inference(self) -> Layer:
        return self._running(self.num_features, self.eps, self.affine, bias=self.bias) if self.track_running_stats else self

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        return norm_params.shapes_of_channels(self.num_features, self.affine, self.bias, self.track_running_stats)


_NO_STATS: dict[str, Any] = dict.fromkeys(norm_params.STATS)
_WHOLE = {"weight", "bias", *_NO_STATS}


def _unchecked(eps: float, momentum: float, forward: kernels.Kernel, backward: kernels.Kernel) -> Unchecked:
    """Make the unchecked verbs of batch normalization with weight, bias and running statistics."""

    def apply(params: Params, x: Tensor) -> tuple[Tensor, Cache]:
        running = params["running_mean"], params["running_var"]
        y, mean, r, ahead = kernels.unchecked_ahead(forward, x, params["weight"], params["bias"], eps, running, momentum)
        return y, (x, mean, r, running, ahead)

    def vjp(params: Any, cache: Cache, gy: Tensor) -> tuple[Grads, Tensor]:
        x, mean, r, _, _ = cache
        gx, gw, gb = kernels.unchecked_backward(backward, gy, x, params["weight"], eps, (mean, r))
        return {**params, **_NO_STATS, "weight": gw, "bias": gb}, gx  # in the order of params

    def grads(params: Params, cache: Cache, gy: Tensor) -> Grads:
        return vjp(params, cache, gy)[0]

    return Unchecked(apply, vjp, grads)


@frozen
class BatchNorm1d(BatchNorm):
    """Normalize each channel of (N, channels) or (N, channels, length) with the statistics of the batch.

        μ  = Σ x / m       σ² = Σ (x - μ)² / m       r = 1 / √(σ² + ε)
        y  = γ x̂ + β       x̂ = (x - μ) r
        gβ = Σ gy          gγ = Σ gy x̂
        gx = γ r (gy - gβ / m - x̂ gγ / m)            sums over the m elements of a channel

    y does not depend on the running statistics. ``update_stats(params, cache)`` moves them towards the statistics of the batch,
    and ``inference()`` returns the layer that normalizes with them:

        running ← (1 - momentum) running + momentum batch       with the unbiased variance of the batch

    Args:
        num_features: Number of channels, the size of axis 1 of x; ``None`` to infer it with ``infer_sizes``.
        eps: Added to the variance before the square root, to avoid division by 0.
        momentum: Weight of the new batch in the running statistics; ``None`` for the mean over all batches.
        affine: Whether to learn the scale γ and the shift β of each channel.
        track_running_stats: Whether to keep running statistics; without them ``inference()`` also uses batch statistics.
        bias: Whether to learn β; without effect if ``affine=False``.

    Shape:
        x (N, num_features) or (N, num_features, length) → y of the same shape

    Params:
        weight: γ (num_features,), ones; absent with ``affine=False``.
        bias: β (num_features,), zeros; absent with ``affine=False`` or ``bias=False``.
        running_mean: (num_features,), zeros; absent with ``track_running_stats=False`` and not trained, like the next two.
        running_var: (num_features,), ones.
        num_batches_tracked: (), int64, 0.

    Cache:
        ``x``, not copied; μ and r of the batch, in single precision at least; the running statistics and their next values, or
        ``None``.

    Raises:
        ValueError: If a channel has only one value in the batch, since its variance is 0.

    References:
        Ioffe & Szegedy 2015, algorithm 1; names and defaults as in ``torch.nn.BatchNorm1d``.

    >>> layer = BatchNorm1d(3)
    >>> list(layer.init(0))
    ['weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked']
    """

    _dims = (2, 3)
    _running = RunningBatchNorm1d


@frozen
class BatchNorm2d(BatchNorm):
    """Normalize each channel of (N, channels, height, width) with the statistics of the batch.

        μ  = Σ x / m       σ² = Σ (x - μ)² / m       r = 1 / √(σ² + ε)
        y  = γ x̂ + β       x̂ = (x - μ) r
        gβ = Σ gy          gγ = Σ gy x̂
        gx = γ r (gy - gβ / m - x̂ gγ / m)            sums over the m elements of a channel

    y does not depend on the running statistics. ``update_stats(params, cache)`` moves them towards the statistics of the batch,
    and ``inference()`` returns the layer that normalizes with them:

        running ← (1 - momentum) running + momentum batch       with the unbiased variance of the batch

    Args:
        num_features: Number of channels, the size of axis 1 of x; ``None`` to infer it with ``infer_sizes``.
        eps: Added to the variance before the square root, to avoid division by 0.
        momentum: Weight of the new batch in the running statistics; ``None`` for the mean over all batches.
        affine: Whether to learn the scale γ and the shift β of each channel.
        track_running_stats: Whether to keep running statistics; without them ``inference()`` also uses batch statistics.
        bias: Whether to learn β; without effect if ``affine=False``.

    Shape:
        x (N, num_features, height, width) → y of the same shape

    Params:
        weight: γ (num_features,), ones; absent with ``affine=False``.
        bias: β (num_features,), zeros; absent with ``affine=False`` or ``bias=False``.
        running_mean: (num_features,), zeros; absent with ``track_running_stats=False`` and not trained, like the next two.
        running_var: (num_features,), ones.
        num_batches_tracked: (), int64, 0.

    Cache:
        ``x``, not copied; μ and r of the batch, in single precision at least; the running statistics and their next values, or
        ``None``.

    Raises:
        ValueError: If a channel has only one value in the batch, since its variance is 0.

    References:
        Ioffe & Szegedy 2015, algorithm 1; names and defaults as in ``torch.nn.BatchNorm2d``.

    >>> BatchNorm2d(3).inference()
    RunningBatchNorm2d(num_features=3)
    """

    _dims = (4,)
    _running = RunningBatchNorm2d


@frozen
class BatchNorm3d(BatchNorm):
    """Normalize each channel of (N, channels, depth, height, width) with the statistics of the batch.

        μ  = Σ x / m       σ² = Σ (x - μ)² / m       r = 1 / √(σ² + ε)
        y  = γ x̂ + β       x̂ = (x - μ) r
        gβ = Σ gy          gγ = Σ gy x̂
        gx = γ r (gy - gβ / m - x̂ gγ / m)            sums over the m elements of a channel

    y does not depend on the running statistics. ``update_stats(params, cache)`` moves them towards the statistics of the batch,
    and ``inference()`` returns the layer that normalizes with them:

        running ← (1 - momentum) running + momentum batch       with the unbiased variance of the batch

    Args:
        num_features: Number of channels, the size of axis 1 of x; ``None`` to infer it with ``infer_sizes``.
        eps: Added to the variance before the square root, to avoid division by 0.
        momentum: Weight of the new batch in the running statistics; ``None`` for the mean over all batches.
        affine: Whether to learn the scale γ and the shift β of each channel.
        track_running_stats: Whether to keep running statistics; without them ``inference()`` also uses batch statistics.
        bias: Whether to learn β; without effect if ``affine=False``.

    Shape:
        x (N, num_features, depth, height, width) → y of the same shape

    Params:
        weight: γ (num_features,), ones; absent with ``affine=False``.
        bias: β (num_features,), zeros; absent with ``affine=False`` or ``bias=False``.
        running_mean: (num_features,), zeros; absent with ``track_running_stats=False`` and not trained, like the next two.
        running_var: (num_features,), ones.
        num_batches_tracked: (), int64, 0.

    Cache:
        ``x``, not copied; μ and r of the batch, in single precision at least; the running statistics and their next values, or
        ``None``.

    Raises:
        ValueError: If a channel has only one value in the batch, since its variance is 0.

    References:
        Ioffe & Szegedy 2015, algorithm 1; names and defaults as in ``torch.nn.BatchNorm3d``.

    >>> BatchNorm3d(3).inference()
    RunningBatchNorm3d(num_features=3)
    """

    _dims = (5,)
    _running = RunningBatchNorm3d
