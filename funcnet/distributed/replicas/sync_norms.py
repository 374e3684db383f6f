"""Batch norms whose statistics are those of the batches of all workers.

Worker k has x of mₖ elements per channel, and Σ is over its own elements. With m = Σₖ mₖ and r = 1 / √(σ² + ε):

    μ  = Σₖ Σ x / m      σ² = Σₖ Σ (x - μ)² / m      x̂ = (x - μ) r      y = γ x̂ + β
    gβ = Σ gy            gγ = Σ gy x̂                                                     this worker's
    gx = γ r (gy - Σₖ gβ / m - x̂ Σₖ gγ / m)                                              of all workers

The loss that is differentiated is the sum L = Σₖ Lₖ of what the gy of each worker is the gradient of, as ``data_parallel`` has
it, which multiplies each gy by its worker's share of the batch. y of worker k moves Lₖ only, but x of worker k moves μ and σ² of
all of them, so gx has the sums over all workers. γ and β have a copy on each worker: gγ and gβ are the gradients by this copy,
of which the step adds up those of all workers, as it does for every other layer.
"""

from abc import abstractmethod
from typing import Any

import torch
import torch.distributed as dist
from attrs import field
from torch import Tensor

from funcnet.checks import check_gy
from funcnet.contract import Cache, Grads, Layer, Params, Rng
from funcnet.distributed.workers import Workers, stack_now, sum_now, workers_of
from funcnet.errors import value_error
from funcnet.kernels import batch_norm as plain_kernels
from funcnet.kernels import synced_batch_norm as kernels
from funcnet.kernels.private_names import constant, process_group_named
from funcnet.kernels.tracing import can_look_at, is_transformed_while_tracing
from funcnet.layers.norm import params as norm_params
from funcnet.layers.norm.batch_norm import BatchNorm, BatchNorm1d, BatchNorm2d, BatchNorm3d
from funcnet.layers.norm.running_batch_norm import (
    RunningBatchNorm1d,
    RunningBatchNorm2d,
    RunningBatchNorm3d,
    weight_and_bias,
)
from funcnet.value import frozen
from funcnet.walking import map_layers, require_layer, walk


def _name_of(group: Any) -> Any:
    """Return the name of a process group; a name, and what is no group, as it is."""
    return getattr(group, "group_name", group)


def _is_name(value: Any, attribute: Any, got: Any) -> None:
    if got is not None and not isinstance(got, str):
        raise value_error(value, "group must be a process group that this process is in, its name, or None for all", repr(got))


@frozen
class SyncBatchNorm(BatchNorm):
    """Batch normalization by the statistics of all workers, over axes whose number a subclass says; all of it is here."""

    group: str | None = field(default=None, kw_only=True, converter=_name_of, validator=_is_name)

    ensemble_mode = "loop"

    @property
    @abstractmethod
    def _alone(self) -> type[BatchNorm]:
        """Return the class that normalizes x of these axes by this worker's statistics."""

    def process_group(self) -> Any:
        """Return the process group, which must be one that this process is in; ``None`` for all processes."""
        return None if self.group is None else _group_named(self, self.group)

    def workers(self, x: Tensor) -> Workers | None:
        """Return the workers that x is shared among; ``None`` for one process, and where x has no values."""
        if x.is_meta or not dist.is_available() or not dist.is_initialized():
            return None
        workers = workers_of(self, self.process_group())
        if workers.size == 1:
            return None
        if is_transformed_while_tracing():
            raise value_error(self, "several workers cannot normalize together under vmap or another transform", "one at work")
        return workers

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Cache]:
        workers = self.workers(x)
        if workers is None:
            return super().apply(params, x, rng)
        w, b = weight_and_bias(self, params, x, 3 * self.track_running_stats)
        count, mean, var = self._moments(workers, x)
        return kernels.normalized(x, w, b, self.eps, (mean, var)), (x, count, mean, var)

    def _moments(self, workers: Workers, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return m, μ and σ² of all workers."""
        n: Any = self.num_features
        local = x.numel() // n
        mean, var = kernels.channel_moments(x)
        rows = stack_now(workers, torch.cat([mean.new_full((1,), local), mean, var]))
        found = kernels.merged(*torch.split(rows, [1, n, n], 1))
        # Where this worker has two values per channel, all of them have. Else all look, and all raise.
        if local < 2 and can_look_at(found[0]) and found[0].item() == 1:
            rule = "the batches of all workers must together have more than one value per channel"
            raise value_error(self, rule, f"x of shape {tuple(x.shape)} here, and one value in all")
        return found

    def vjp(self, params: Params, cache: Cache, gy: Tensor) -> tuple[Grads, Tensor]:
        if not _is_of_many(cache):
            return super().vjp(params, cache, gy)
        x, count, mean, var = cache
        w, how = self._weight(params), (self.eps, (mean, var))
        g, gw, gb = kernels.gradient_and_sums(check_gy(self, gy, x.shape, x), x, w, *how)
        sums = sum_now(self._known_workers(x), torch.cat([gw.double(), gb.double()]))
        n: Any = self.num_features
        gx = kernels.input_gradient(g, x, w, *how, count, torch.split(sums, n))
        return self._gparams(params, gw, gb), gx

    def grads(self, params: Params, cache: Cache, gy: Tensor) -> Grads:
        """Return this worker's sums, without a collective."""
        if not _is_of_many(cache):
            return super().grads(params, cache, gy)
        x, _, mean, var = cache
        _, gw, gb = kernels.gradient_and_sums(check_gy(self, gy, x.shape, x), x, self._weight(params), self.eps, (mean, var))
        return self._gparams(params, gw, gb)

    def _known_workers(self, x: Tensor) -> Workers:
        workers = self.workers(x)
        if workers is None:
            raise value_error(self, "the cache is of several workers, so the same ones must go back", "one process")
        return workers

    def _weight(self, params: Params) -> Tensor | None:
        found: Tensor | None = norm_params.backward_params(self, params, self.num_features)[0]
        return found

    def _gparams(self, params: Params, gw: Tensor, gb: Tensor) -> Params:
        like = params["weight"] if self.affine else gw
        return norm_params.gparams(params, gw.to(like.dtype), gb.to(like.dtype))

    def update_stats(self, params: Any, cache: Cache) -> Any:
        if not _is_of_many(cache) or not self.track_running_stats:
            return super().update_stats(params, cache)
        x, m, mean, var = cache
        count = norm_params.batch_count(self, params, x) + 1
        rate: Any = 1 / count.double() if self.momentum is None else self.momentum
        unbiased = var * m / (m - 1).clamp_min(1)
        moved = plain_kernels.moved(norm_params.running_stats(self, params), (mean, unbiased), rate, 1)
        return {**params, "running_mean": moved[0], "running_var": moved[1], "num_batches_tracked": count}

    def inference(self) -> Layer:
        return converted(self, self._alone).inference()


def _is_of_many(cache: Cache) -> bool:
    """Tell the cache of several workers from that of one."""
    return isinstance(cache, tuple) and len(cache) == 4


@constant  # Dynamo cannot trace the look-up
def _group_named(layer: Layer, name: str) -> Any:
    try:
        return process_group_named(name)
    except Exception as error:
        raise value_error(layer, "group must name a process group that this process is in", repr(name)) from error


def converted(layer: BatchNorm, kind: type[BatchNorm], **more: Any) -> BatchNorm:
    """Return a batch norm of another class, with the fields of ``layer``."""
    how = (layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats)
    return kind(*how, bias=layer.bias, **more)


@frozen
class SyncBatchNorm1d(SyncBatchNorm):
    """Batch normalization of (N, channels) or (N, channels, length), by the statistics of the batches of all workers.

        y = γ (x - μ) / √(σ² + ε) + β      μ and σ² over the rows of all workers
        gx = γ r (gy - Σₖ gβ / m - x̂ Σₖ gγ / m)      gβ = Σ gy and gγ = Σ gy x̂ are this worker's, Σₖ adds up all workers'

    With one process, and before ``torch.distributed.init_process_group``, it is ``BatchNorm1d``. With several, ``apply`` calls
    one collective, which gathers 2 · channels + 1 numbers from each worker, and ``vjp`` another one, which adds up 2 · channels
    numbers; ``grads`` calls none. All workers must call them, those with an empty batch too. Both may be compiled; under ``vmap``
    several workers cannot normalize together.

    ``inference()`` is that of ``BatchNorm1d``. The gradients of weight and bias are this worker's, for a loss that is the sum of
    the workers' losses; ``data_parallel`` adds them up.

    Args:
        num_features: As in ``BatchNorm1d``, with ``eps``, ``momentum``, ``affine``, ``track_running_stats`` and ``bias``.
        group: The process group, or its name, which is what the layer holds; by default all processes.

    Params:
        Those of ``BatchNorm1d``.

    Cache:
        With several workers ``x``, and of all of them the count m, μ and σ² in float64; else that of ``BatchNorm1d``.

    Raises:
        ValueError: As in ``BatchNorm1d``; on every worker, when all batches together have one value per channel; and for a
            ``group`` that this process is not in.

    References:
        Chan et al. 1979, eq. 2.1, for the moments of several batches; ``torch.nn.SyncBatchNorm``.

    >>> SyncBatchNorm1d(3).inference()
    RunningBatchNorm1d(num_features=3)
    """

    _dims = (2, 3)
    _running = RunningBatchNorm1d
    _alone = BatchNorm1d


@frozen
class SyncBatchNorm2d(SyncBatchNorm):
    """Batch normalization of (N, channels, height, width), by the statistics of the batches of all workers.

    All else is as in ``SyncBatchNorm1d``.

    Args:
        num_features: As in ``BatchNorm2d``, with ``eps``, ``momentum``, ``affine``, ``track_running_stats`` and ``bias``.
        group: The process group, or its name; by default all processes.

    >>> SyncBatchNorm2d(3).inference()
    RunningBatchNorm2d(num_features=3)
    """

    _dims = (4,)
    _running = RunningBatchNorm2d
    _alone = BatchNorm2d


@frozen
class SyncBatchNorm3d(SyncBatchNorm):
    """Batch normalization of (N, channels, depth, height, width), by the statistics of the batches of all workers.

    All else is as in ``SyncBatchNorm1d``.

    Args:
        num_features: As in ``BatchNorm3d``, with ``eps``, ``momentum``, ``affine``, ``track_running_stats`` and ``bias``.
        group: The process group, or its name; by default all processes.

    >>> SyncBatchNorm3d(3).inference()
    RunningBatchNorm3d(num_features=3)
    """

    _dims = (5,)
    _running = RunningBatchNorm3d
    _alone = BatchNorm3d


def has_sync_norms(net: Layer) -> bool:
    """Tell whether all workers must call the verbs of a net together."""
    return any(isinstance(layer, SyncBatchNorm) for _, layer in walk(net))


def require_apart(who: str, net: Layer, workers: Workers) -> None:
    """Raise ``ValueError`` for a norm that waits for several of the workers, which compute different layers at a time."""
    here = {*dist.get_process_group_ranks(workers.group)}
    for path, layer in walk(net):
        if isinstance(layer, SyncBatchNorm) and len(here & {*dist.get_process_group_ranks(layer.process_group())}) > 1:
            rule = "norms must be synchronized over workers of one stage, sync_batch_norm(net, group)"
            raise value_error(who, rule, f"{layer!r} at {path!r}, which waits for other stages")


_SYNCED: dict[type[Layer], type[SyncBatchNorm]] = {
    BatchNorm1d: SyncBatchNorm1d,
    BatchNorm2d: SyncBatchNorm2d,
    BatchNorm3d: SyncBatchNorm3d,
}


def sync_batch_norm(net: Layer, group: Any = None) -> Layer:
    """Return the net with the statistics of its batch norms taken over the batches of all workers.

    Each ``BatchNorm1d``, ``2d`` and ``3d``, within any combinator, becomes a ``SyncBatchNorm1d``, ``2d`` or ``3d`` with the same
    params and the same ``inference()``. Its subclasses stay as they are. Every worker must rewrite its net, before training.

    Args:
        net: The net.
        group: The process group that shares a batch; by default all processes.

    Raises:
        ValueError: For anything but a layer, and for a ``group`` that is no process group that this process is in.

    >>> from funcnet.combinators.sequential import serial
    >>> from funcnet.layers.linear.linear import Linear
    >>> sync_batch_norm(serial(Linear(2, 5), BatchNorm1d(5)))
    serial(Linear(in_features=2, out_features=5), SyncBatchNorm1d(num_features=5))
    """
    require_layer("sync_batch_norm", net)

    def synced(layer: Any) -> Layer:
        if isinstance(layer, SyncBatchNorm):
            return layer.replace(group=group)
        kind = _SYNCED.get(type(layer))
        return layer if kind is None else converted(layer, kind, group=group)

    return map_layers(synced, net)
