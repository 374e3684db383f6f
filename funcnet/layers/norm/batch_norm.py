"""Batch normalization: each channel shifted and scaled to mean 0 and variance 1 over the batch, then affinely mapped.

Over the m elements of a channel of x (N, channels, ...), those of all rows, with r = 1 / √(σ² + ε):

    μ  = Σ x / m       σ² = Σ (x - μ)² / m       x̂ = (x - μ) r       y = γ x̂ + β
    gβ = Σ gy          gγ = Σ gy x̂
    gx = γ r (gy - gβ / m - x̂ gγ / m)

and with running statistics in place of μ and σ², which depend on no x:  gx = γ r gy.
"""

from abc import abstractmethod
from typing import Any

from attrs import field
from torch import Tensor

from funcnet.checks import Misfit, axes_complaint, check_gy
from funcnet.contract import Cache, Grads, Layer, Params, Rng, Size
from funcnet.errors import flag, size_or_none, value_error
from funcnet.kernels import batch_norm as kernels
from funcnet.layers.norm import params as norm_params
from funcnet.plans import Unchecked
from funcnet.random.keys import Key
from funcnet.value import frozen


@frozen
class _Channels(Layer):
    """What normalization by the batch and by running statistics share: the channels, and how many axes x may have."""

    undecayed = ("weight",)

    num_features: Size = field(validator=size_or_none)
    eps: float = field(default=1e-5, validator=norm_params.positive)

    @property
    @abstractmethod
    def _dims(self) -> tuple[int, ...]:
        """Return how many axes x may have."""

    @property
    def inferred_sizes(self) -> dict[str, int]:
        return {"num_features": 1}

    def init(self, rng: Key | int) -> Params:
        return norm_params.initialize(rng, self)

    def complaint(self, x: Tensor) -> str | None:
        return axes_complaint(self, x, *["N, num_features" + norm_params.SPACE[dim - 2] for dim in self._dims])


def weight_and_bias(layer: "BatchNorm | RunningBatchNorm", params: Any, x: Tensor, stats: int) -> tuple[Any, Any]:
    """Return weight and bias, after a check of what the kernel trusts, and would read beyond."""
    n, affine = layer.num_features, layer.affine
    found = params["weight"] if affine else None, params["bias"] if affine and layer.bias else None
    if x.dim() not in layer._dims or x.shape[1] != n or len(params) != affine * (1 + layer.bias) + stats:
        raise Misfit
    for name, leaf in params.items():
        if leaf.numel() != n and name != "num_batches_tracked":
            raise Misfit
    w, b = found
    if w is not None and (w.dtype is not x.dtype or (b is not None and b.dtype is not x.dtype)):
        norm_params.require_dtypes(x, w, b)  # a call for nothing would take 0.3 µs
    return found


@frozen
class BatchNorm(_Channels):
    """Batch normalization over axes whose number a subclass says; all of it is here."""

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
        """Return the class that normalizes x of these axes by the running statistics."""

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
        """Return the verbs for float32, with running statistics that the kernel moves."""
        x, _, r, running, ahead = cache
        is_whole = self.affine and self.bias and ahead is not None and r.dtype is x.dtype and {*params} == _WHOLE
        if not is_whole or self.momentum is None or not kernels.serves_unchecked(x, params["weight"], running):
            return None
        return _unchecked(self.eps, self.momentum)

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
        if ahead is not None and self.momentum is not None:  # by the same kernel: equal statistics move to equal bits
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


def _unchecked(eps: float, momentum: float) -> Unchecked:
    """Make the verbs without checks of batch normalization with weight, bias and running statistics."""

    def apply(params: Params, x: Tensor) -> tuple[Tensor, Cache]:
        running = params["running_mean"], params["running_var"]
        y, mean, r, ahead = kernels.unchecked_ahead(x, params["weight"], params["bias"], eps, running, momentum)
        return y, (x, mean, r, running, ahead)

    def vjp(params: Any, cache: Cache, gy: Tensor) -> tuple[Grads, Tensor]:
        x, mean, r, _, _ = cache
        gx, gw, gb = kernels.unchecked_backward(gy, x, params["weight"], eps, (mean, r))
        return {**params, **_NO_STATS, "weight": gw, "bias": gb}, gx  # in the order of params

    def grads(params: Params, cache: Cache, gy: Tensor) -> Grads:
        return vjp(params, cache, gy)[0]

    return Unchecked(apply, vjp, grads)


@frozen
class RunningBatchNorm(_Channels):
    """Batch normalization by the running statistics, over axes whose number a subclass says; all of it is here."""

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
    """Batch normalization by the running statistics: what ``BatchNorm1d(...).inference()`` is, with the same params.

    In training it serves to adapt γ and β alone, each row then being independent of its batch.

    Params   as of ``BatchNorm1d``.
    Cache    ``x``.
    Raises   ``ValueError`` for params of another layer, and an ``x`` with other axes, channels or dtype.
    Source   Ioffe & Szegedy 2015, algorithm 2, line 11.
    """

    _dims = (2, 3)


@frozen
class BatchNorm1d(BatchNorm):
    """Batch normalization over (N, channels) or (N, channels, length), by the statistics of the batch at hand.

    ``apply`` never reads the running statistics: ``update_stats(params, cache)`` moves them, by running ← (1 - momentum) running
    + momentum · batch's (its unbiased variance), or with ``momentum=None`` as the mean of all batches; ``inference()`` is the
    layer that reads them. With ``track_running_stats=False`` there are none, and ``inference()`` goes by the batch too.
    ``num_features=None`` is for ``infer_sizes`` to find.

    Params   ``weight`` γ, ones, and ``bias`` β, zeros, (num_features,), neither with ``affine=False``, and no ``bias`` with
             ``bias=False``; ``running_mean``, zeros, ``running_var``, ones, and ``num_batches_tracked``, 0, which are not
             trained: their gradient is ``None``.
    Cache    ``x``, the batch's mean and its 1 / √(σ² + ε), both in single precision at least; the running statistics, and
             what they will be once they are moved from there. ``update_stats`` of params with other statistics, such as those
             of the batch before, moves those.
    Raises   ``ValueError`` for a batch with one value per channel, whose variance is 0, for params of another layer,
             and an ``x`` with other axes, channels or dtype.
    Source   Ioffe & Szegedy 2015, algorithm 1; the names, ε and momentum are ``torch.nn.BatchNorm1d``'s.
    """

    _dims = (2, 3)
    _running = RunningBatchNorm1d


@frozen
class RunningBatchNorm2d(RunningBatchNorm):
    """Batch normalization by the running statistics: what ``BatchNorm2d(...).inference()`` is, with the same params.

    In training it serves to adapt γ and β alone, each row then being independent of its batch.

    Params   as of ``BatchNorm2d``.
    Cache    ``x``.
    Raises   ``ValueError`` for params of another layer, and an ``x`` with other axes, channels or dtype.
    Source   Ioffe & Szegedy 2015, algorithm 2, line 11.
    """

    _dims = (4,)


@frozen
class BatchNorm2d(BatchNorm):
    """Batch normalization over (N, channels, height, width), by the statistics of the batch at hand.

    All else is as in ``BatchNorm1d``.

    Params   as of ``BatchNorm1d``.
    Cache    as of ``BatchNorm1d``.
    Raises   ``ValueError`` for a batch with one value per channel, whose variance is 0, for params of another layer,
             and an ``x`` with other axes, channels or dtype.
    Source   Ioffe & Szegedy 2015, algorithm 1; the names, ε and momentum are ``torch.nn.BatchNorm2d``'s.
    """

    _dims = (4,)
    _running = RunningBatchNorm2d


@frozen
class RunningBatchNorm3d(RunningBatchNorm):
    """Batch normalization by the running statistics: what ``BatchNorm3d(...).inference()`` is, with the same params.

    In training it serves to adapt γ and β alone, each row then being independent of its batch.

    Params   as of ``BatchNorm3d``.
    Cache    ``x``.
    Raises   ``ValueError`` for params of another layer, and an ``x`` with other axes, channels or dtype.
    Source   Ioffe & Szegedy 2015, algorithm 2, line 11.
    """

    _dims = (5,)


@frozen
class BatchNorm3d(BatchNorm):
    """Batch normalization over (N, channels, depth, height, width), by the statistics of the batch at hand.

    All else is as in ``BatchNorm1d``.

    Params   as of ``BatchNorm1d``.
    Cache    as of ``BatchNorm1d``.
    Raises   ``ValueError`` for a batch with one value per channel, whose variance is 0, for params of another layer,
             and an ``x`` with other axes, channels or dtype.
    Source   Ioffe & Szegedy 2015, algorithm 1; the names, ε and momentum are ``torch.nn.BatchNorm3d``'s.
    """

    _dims = (5,)
    _running = RunningBatchNorm3d
