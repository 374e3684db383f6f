"""Batch norms with the statistics of the batches of all workers.

Worker k has x of mₖ elements per channel, and Σ is over its own elements. With m = Σₖ mₖ and r = 1 / √(σ² + ε):

    μ  = Σₖ Σ x / m      σ² = Σₖ Σ (x - μ)² / m      x̂ = (x - μ) r      y = γ x̂ + β
    gβ = Σ gy            gγ = Σ gy x̂                                                     this worker's
    gx = γ r (gy - Σₖ gβ / m - x̂ Σₖ gγ / m)                                              of all workers

The differentiated loss is L = Σₖ Lₖ, the sum of the losses whose gradients are the workers' gy; ``data_parallel`` multiplies each
gy by its worker's share of the batch. y of worker k affects only Lₖ, but x of worker k affects μ and σ² on all workers, so gx
contains sums over all of them. Each worker has a copy of γ and β: gγ and gβ are the gradients with respect to this copy, and the
step adds up those of all workers, as for every other layer.
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
from funcnet.layers.norm.batch_norm import BatchNorm
from funcnet.layers.norm.running_batch_norm import weight_and_bias
from funcnet.value import frozen
from funcnet.walking import walk


def _name_of(group: Any) -> Any:
    """Return the name of a process group, or any other value unchanged."""
    return getattr(group, "group_name", group)


def _is_name(value: Any, attribute: Any, got: Any) -> None:
    if got is not None and not isinstance(got, str):
        raise value_error(value, "group must be a process group that this process is in, its name, or None for all", repr(got))


@frozen
class SyncBatchNorm(BatchNorm):
    """Batch normalization with the statistics of all workers; subclasses only define the number of axes."""

    group: str | None = field(default=None, kw_only=True, converter=_name_of, validator=_is_name)

    ensemble_mode = "loop"

    @property
    @abstractmethod
    def _local_class(self) -> type[BatchNorm]:
        """Return the class that normalizes with this worker's statistics."""

    def process_group(self) -> Any:
        """Return the process group, which must contain this process, or ``None`` for all processes."""
        return None if self.group is None else _group_named(self, self.group)

    def workers(self, x: Tensor) -> Workers | None:
        """Return the workers that share the batch, or ``None`` for one process or if x has no values.

        Args:
            x: This worker's rows.
        """
        if x.is_meta or not dist.is_available() or not dist.is_initialized():
            return None
        workers = workers_of(self, self.process_group())
        if workers.size == 1:
            return None
        if is_transformed_while_tracing():
            rule = "several workers cannot normalize together under vmap or another transform"
            raise value_error(self, rule, "an active transform")
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
        # If this worker has two values per channel, so do all workers together. Otherwise all workers check, and all raise.
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
            raise value_error(self, "the cache of several workers needs the same workers in the backward pass", "one process")
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
        return converted(self, self._local_class).inference()


def _is_of_many(cache: Cache) -> bool:
    """Return whether a cache is from several workers."""
    return isinstance(cache, tuple) and len(cache) == 4


@constant  # Dynamo cannot trace the lookup
def _group_named(layer: Layer, name: str) -> Any:
    try:
        return process_group_named(name)
    except Exception as error:
        raise value_error(layer, "group must name a process group that this process is in", repr(name)) from error


def converted(layer: BatchNorm, kind: type[BatchNorm], **more: Any) -> BatchNorm:
    """Return a batch norm of another class, with the fields of ``layer``."""
    how = (layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats)
    return kind(*how, bias=layer.bias, **more)


def has_sync_norms(net: Layer) -> bool:
    """Return whether all workers must call the methods of a net together."""
    return any(isinstance(layer, SyncBatchNorm) for _, layer in walk(net))


def require_apart(who: str, net: Layer, workers: Workers) -> None:
    """Raise ``ValueError`` for a norm that waits for several of the workers, which compute different layers."""
    here = {*dist.get_process_group_ranks(workers.group)}
    for path, layer in walk(net):
        if isinstance(layer, SyncBatchNorm) and len(here & {*dist.get_process_group_ranks(layer.process_group())}) > 1:
            rule = "norms must be synchronized over workers of one stage, sync_batch_norm(net, group)"
            raise value_error(who, rule, f"{layer!r} at {path!r}, which waits for other stages")
