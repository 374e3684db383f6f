"""Synchronized batch norms for one, two and three axes, and the rewrite of a net that uses them.

The formulas and their derivation are in ``sync_norms``.
"""

from typing import Any

from funcnet.contract import Layer
from funcnet.distributed.replicas.sync_norms import SyncBatchNorm, converted
from funcnet.layers.norm.batch_norm import BatchNorm1d, BatchNorm2d, BatchNorm3d
from funcnet.layers.norm.running_batch_norm import RunningBatchNorm1d, RunningBatchNorm2d, RunningBatchNorm3d
from funcnet.value import frozen
from funcnet.walking import map_layers, require_layer


@frozen
class SyncBatchNorm1d(SyncBatchNorm):
    """Batch normalization of (N, channels) or (N, channels, length) with the statistics of the batches of all workers.

        y  = γ (x - μ) / √(σ² + ε) + β                μ and σ² over the elements of all workers, per channel
        gx = γ r (gy - Σₖ gβ / m - x̂ Σₖ gγ / m)       r = 1 / √(σ² + ε)    x̂ = (x - μ) r
        gβ = Σ gy    gγ = Σ gy x̂                      this worker's; Σₖ adds up those of all workers k

    m is the number of elements per channel on all workers. With one process, and before
    ``torch.distributed.init_process_group``, the layer equals ``BatchNorm1d``. With several, ``apply`` calls one collective,
    which gathers 2 · channels + 1 numbers from each worker, and ``vjp`` calls another, which sums 2 · channels numbers; ``grads``
    calls none. All workers must call them, even with an empty batch. Both can be compiled; under ``vmap`` several workers cannot
    normalize together.

    ``inference()`` is that of ``BatchNorm1d``. The gradients of weight and bias are this worker's, for a loss that is the sum of
    the workers' losses; ``data_parallel`` adds them up.

    Args:
        num_features: Number of channels; ``None`` to infer it with ``infer_sizes``.
        eps: The ε added to the variance.
        momentum: Weight of the batch's statistics in the update of the running ones; ``None`` for the mean of all batches.
        affine: Whether to learn γ and β.
        track_running_stats: Whether params hold running statistics for ``inference()``.
        bias: Whether to learn β; only with ``affine``.
        group: The process group, or its name, which is what the layer stores; by default all processes.

    Shape:
        x (N, channels) or (N, channels, length) → y of the same shape

    Params:
        weight: (num_features,), ones; absent with ``affine=False``.
        bias: (num_features,), zeros; absent with ``affine=False`` or ``bias=False``.
        running_mean: (num_features,), zeros, not trained; absent with ``track_running_stats=False``, as are the next two.
        running_var: (num_features,), ones, not trained.
        num_batches_tracked: (), 0, not trained.

    Cache:
        With several workers ``x``, not copied, and their common m, μ and σ² in float64; otherwise that of ``BatchNorm1d``.

    Raises:
        ValueError: On every worker, if all batches together have one value per channel; if this process is not in ``group``.

    References:
        Ioffe & Szegedy 2015, algorithm 1; Chan et al. 1979 for the moments of several batches;
        ``torch.nn.SyncBatchNorm``.

    >>> SyncBatchNorm1d(3).inference()
    RunningBatchNorm1d(num_features=3)
    """

    _dims = (2, 3)
    _running = RunningBatchNorm1d
    _local_class = BatchNorm1d


@frozen
class SyncBatchNorm2d(SyncBatchNorm):
    """Batch normalization of (N, channels, height, width) with the statistics of the batches of all workers.

        y  = γ (x - μ) / √(σ² + ε) + β                μ and σ² over the elements of all workers, per channel
        gx = γ r (gy - Σₖ gβ / m - x̂ Σₖ gγ / m)       r = 1 / √(σ² + ε)    x̂ = (x - μ) r
        gβ = Σ gy    gγ = Σ gy x̂                      this worker's; Σₖ adds up those of all workers k

    m is the number of elements per channel on all workers. With one process, and before
    ``torch.distributed.init_process_group``, the layer equals ``BatchNorm2d``. With several, ``apply`` calls one collective,
    which gathers 2 · channels + 1 numbers from each worker, and ``vjp`` calls another, which sums 2 · channels numbers; ``grads``
    calls none. All workers must call them, even with an empty batch. Both can be compiled; under ``vmap`` several workers cannot
    normalize together.

    ``inference()`` is that of ``BatchNorm2d``. The gradients of weight and bias are this worker's, for a loss that is the sum of
    the workers' losses; ``data_parallel`` adds them up.

    Args:
        num_features: Number of channels; ``None`` to infer it with ``infer_sizes``.
        eps: The ε added to the variance.
        momentum: Weight of the batch's statistics in the update of the running ones; ``None`` for the mean of all batches.
        affine: Whether to learn γ and β.
        track_running_stats: Whether params hold running statistics for ``inference()``.
        bias: Whether to learn β; only with ``affine``.
        group: The process group, or its name, which is what the layer stores; by default all processes.

    Shape:
        x (N, channels, height, width) → y of the same shape

    Params:
        weight: (num_features,), ones; absent with ``affine=False``.
        bias: (num_features,), zeros; absent with ``affine=False`` or ``bias=False``.
        running_mean: (num_features,), zeros, not trained; absent with ``track_running_stats=False``, as are the next two.
        running_var: (num_features,), ones, not trained.
        num_batches_tracked: (), 0, not trained.

    Cache:
        With several workers ``x``, not copied, and their common m, μ and σ² in float64; otherwise that of ``BatchNorm2d``.

    Raises:
        ValueError: On every worker, if all batches together have one value per channel; if this process is not in ``group``.

    References:
        Ioffe & Szegedy 2015, algorithm 1; Chan et al. 1979 for the moments of several batches;
        ``torch.nn.SyncBatchNorm``.

    >>> SyncBatchNorm2d(3).inference()
    RunningBatchNorm2d(num_features=3)
    """

    _dims = (4,)
    _running = RunningBatchNorm2d
    _local_class = BatchNorm2d


@frozen
class SyncBatchNorm3d(SyncBatchNorm):
    """Batch normalization of (N, channels, depth, height, width) with the statistics of the batches of all workers.

        y  = γ (x - μ) / √(σ² + ε) + β                μ and σ² over the elements of all workers, per channel
        gx = γ r (gy - Σₖ gβ / m - x̂ Σₖ gγ / m)       r = 1 / √(σ² + ε)    x̂ = (x - μ) r
        gβ = Σ gy    gγ = Σ gy x̂                      this worker's; Σₖ adds up those of all workers k

    m is the number of elements per channel on all workers. With one process, and before
    ``torch.distributed.init_process_group``, the layer equals ``BatchNorm3d``. With several, ``apply`` calls one collective,
    which gathers 2 · channels + 1 numbers from each worker, and ``vjp`` calls another, which sums 2 · channels numbers; ``grads``
    calls none. All workers must call them, even with an empty batch. Both can be compiled; under ``vmap`` several workers cannot
    normalize together.

    ``inference()`` is that of ``BatchNorm3d``. The gradients of weight and bias are this worker's, for a loss that is the sum of
    the workers' losses; ``data_parallel`` adds them up.

    Args:
        num_features: Number of channels; ``None`` to infer it with ``infer_sizes``.
        eps: The ε added to the variance.
        momentum: Weight of the batch's statistics in the update of the running ones; ``None`` for the mean of all batches.
        affine: Whether to learn γ and β.
        track_running_stats: Whether params hold running statistics for ``inference()``.
        bias: Whether to learn β; only with ``affine``.
        group: The process group, or its name, which is what the layer stores; by default all processes.

    Shape:
        x (N, channels, depth, height, width) → y of the same shape

    Params:
        weight: (num_features,), ones; absent with ``affine=False``.
        bias: (num_features,), zeros; absent with ``affine=False`` or ``bias=False``.
        running_mean: (num_features,), zeros, not trained; absent with ``track_running_stats=False``, as are the next two.
        running_var: (num_features,), ones, not trained.
        num_batches_tracked: (), 0, not trained.

    Cache:
        With several workers ``x``, not copied, and their common m, μ and σ² in float64; otherwise that of ``BatchNorm3d``.

    Raises:
        ValueError: On every worker, if all batches together have one value per channel; if this process is not in ``group``.

    References:
        Ioffe & Szegedy 2015, algorithm 1; Chan et al. 1979 for the moments of several batches;
        ``torch.nn.SyncBatchNorm``.

    >>> SyncBatchNorm3d(3).inference()
    RunningBatchNorm3d(num_features=3)
    """

    _dims = (5,)
    _running = RunningBatchNorm3d
    _local_class = BatchNorm3d


_SYNCED: dict[type[Layer], type[SyncBatchNorm]] = {
    BatchNorm1d: SyncBatchNorm1d,
    BatchNorm2d: SyncBatchNorm2d,
    BatchNorm3d: SyncBatchNorm3d,
}


def sync_batch_norm(net: Layer, group: Any = None) -> Layer:
    """Return the net with batch norms that use the statistics of the batches of all workers.

    Each ``BatchNorm1d``, ``2d`` and ``3d``, within any combinator, becomes a ``SyncBatchNorm1d``, ``2d`` or ``3d`` with the same
    params and the same ``inference()``. Subclasses do not change. Every worker must rewrite its net before training.

    Args:
        net: The net.
        group: The process group that shares a batch; by default all processes.

    Returns:
        The new net, for the same params.

    Raises:
        ValueError: If ``net`` is no layer, or ``group`` is no process group of this process.

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
