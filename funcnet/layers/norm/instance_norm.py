"""Instance normalization: each channel of each row is shifted and scaled by its own statistics, then affinely mapped.

Over the m elements of a channel of a row of x (N, channels, ...) or (channels, ...), with r = 1 / √(σ² + ε):

    μ  = Σ x / m       σ² = Σ (x - μ)² / m       x̂ = (x - μ) r       y = γ x̂ + β
    gβ = Σ gy          gγ = Σ gy x̂               over rows and elements
    gx = r (g - Σ g / m - x̂ Σ g x̂ / m)           with g = γ gy, over the channel of the row

and with running statistics in place of μ and σ², which depend on no x:  gx = γ r gy.
"""

from abc import abstractmethod
from typing import Any

from attrs import field
from torch import Tensor

from funcnet.checks import Misfit, axes_complaint, check_gy, require_params
from funcnet.contract import Grads, Layer, Params, Rng, Size
from funcnet.errors import flag, size_or_none, value_error
from funcnet.kernels import batch_norm as kernels
from funcnet.kernels.norm import group_norm, group_norm_backward
from funcnet.layers.norm import params as norm_params
from funcnet.random.keys import Key
from funcnet.value import frozen

Cache = tuple[Tensor, Tensor, Tensor]


@frozen
class _Instance(Layer):
    """What both kinds share: over how many axes after the channels they go, and what x and params must be."""

    undecayed = ("weight",)

    num_features: Size = field(validator=size_or_none)
    eps: float = field(default=1e-5, validator=norm_params.positive)

    @property
    @abstractmethod
    def _space(self) -> int:
        """Return how many axes there are after the channels."""

    @property
    def inferred_sizes(self) -> dict[str, int]:
        return {"num_features": -1 - self._space}

    def init(self, rng: Key | int) -> Params:
        return norm_params.initialize(rng, self)

    def _batch(self, x: Tensor) -> Tensor:
        """Return x with a batch axis."""
        return x if x.dim() == self._space + 2 else x.unsqueeze(0)

    def _require_valid(self, params: Any, x: Tensor) -> None:
        """Raise ``Misfit`` where the kernels would not notice: they trust sizes, and take several dtypes."""
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
class InstanceNorm(_Instance):
    """Instance normalization over axes whose number a subclass says; all of it is here."""

    momentum: float | None = field(default=0.1, validator=norm_params.momentum_or_none)
    affine: bool = field(default=False, validator=flag)
    track_running_stats: bool = field(default=False, validator=flag)
    bias: bool = field(default=True, kw_only=True, validator=flag)

    @property
    @abstractmethod
    def _running(self) -> "type[RunningInstanceNorm]":
        """Return the class that normalizes x of these axes by the running statistics."""

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
class RunningInstanceNorm(_Instance):
    """Instance normalization by the running statistics, over axes whose number a subclass says; all of it is here."""

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
    """Normalization by the running statistics: what ``InstanceNorm1d(..., track_running_stats=True).inference()`` is.

    Params   as of ``InstanceNorm1d`` with ``track_running_stats=True``.
    Cache    ``x``.
    Raises   ``ValueError`` for params of another layer, and an ``x`` with other axes, channels or dtype.
    Source   ``torch.nn.InstanceNorm1d``'s formula in evaluation.
    """

    _space = 1


@frozen
class InstanceNorm1d(InstanceNorm):
    """Each channel of each row by itself, over (N, channels, length), or without the batch.

    ``apply`` never reads the running statistics, which there are with ``track_running_stats=True`` alone: ``update_stats`` moves
    them, running ← (1 - momentum) running + momentum · the rows' mean (of the unbiased variance), and ``inference()`` reads them.
    With ``momentum=None`` they are the mean of all batches, as in ``BatchNorm1d``; torch's then never move.
    ``num_features=None`` is for ``infer_sizes`` to find.

    Params   ``weight`` γ, ones, and ``bias`` β, zeros, (num_features,), with ``affine=True``, the latter with ``bias=True``;
             ``running_mean``, zeros, ``running_var``, ones, and ``num_batches_tracked``, which stays 0 as torch's does unless
             ``momentum=None``, with ``track_running_stats=True``: they are not trained, and their gradient is ``None``.
    Cache    ``x``, copied where its axes do not lie in order; each row's and channel's mean and 1 / √(σ² + ε).
    Raises   ``ValueError`` where a channel of a row has one value, whose variance is 0, for params of another layer,
             and an ``x`` with other axes, channels or dtype.
    Source   Ulyanov, Vedaldi & Lempitsky 2016; the names, ε and momentum are ``torch.nn.InstanceNorm1d``'s.
    """

    _space = 1
    _running = RunningInstanceNorm1d


@frozen
class RunningInstanceNorm2d(RunningInstanceNorm):
    """Normalization by the running statistics: what ``InstanceNorm2d(..., track_running_stats=True).inference()`` is.

    Params   as of ``InstanceNorm2d`` with ``track_running_stats=True``.
    Cache    ``x``.
    Raises   ``ValueError`` for params of another layer, and an ``x`` with other axes, channels or dtype.
    Source   ``torch.nn.InstanceNorm2d``'s formula in evaluation.
    """

    _space = 2


@frozen
class InstanceNorm2d(InstanceNorm):
    """Each channel of each row by itself, over (N, channels, height, width), or without the batch.

    All else is as in ``InstanceNorm1d``.

    Params   as of ``InstanceNorm1d``.
    Cache    ``x``, copied where its axes do not lie in order; each row's and channel's mean and 1 / √(σ² + ε).
    Raises   ``ValueError`` where a channel of a row has one value, whose variance is 0, for params of another layer,
             and an ``x`` with other axes, channels or dtype.
    Source   Ulyanov, Vedaldi & Lempitsky 2016; the names, ε and momentum are ``torch.nn.InstanceNorm2d``'s.
    """

    _space = 2
    _running = RunningInstanceNorm2d


@frozen
class RunningInstanceNorm3d(RunningInstanceNorm):
    """Normalization by the running statistics: what ``InstanceNorm3d(..., track_running_stats=True).inference()`` is.

    Params   as of ``InstanceNorm3d`` with ``track_running_stats=True``.
    Cache    ``x``.
    Raises   ``ValueError`` for params of another layer, and an ``x`` with other axes, channels or dtype.
    Source   ``torch.nn.InstanceNorm3d``'s formula in evaluation.
    """

    _space = 3


@frozen
class InstanceNorm3d(InstanceNorm):
    """Each channel of each row by itself, over (N, channels, depth, height, width), or without the batch.

    All else is as in ``InstanceNorm1d``.

    Params   as of ``InstanceNorm1d``.
    Cache    ``x``, copied where its axes do not lie in order; each row's and channel's mean and 1 / √(σ² + ε).
    Raises   ``ValueError`` where a channel of a row has one value, whose variance is 0, for params of another layer,
             and an ``x`` with other axes, channels or dtype.
    Source   Ulyanov, Vedaldi & Lempitsky 2016; the names, ε and momentum are ``torch.nn.InstanceNorm3d``'s.
    """

    _space = 3
    _running = RunningInstanceNorm3d
