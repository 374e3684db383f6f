"""Kernels of optimizers: whole steps of contiguous float32 or float64 tensors in main memory, with rates as numbers.

Each function returns a step that calls the kernels directly, and computes the same bits as ``optim_steps``. Times are for the
eight tensors of a 2-25-25-25-2 net on an AMD EPYC (Zen 4), one thread.
"""

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor

from funcnet.kernels import private_names as torchs
from funcnet.kernels.choices import NEVER, choice
from funcnet.kernels.optim import Tensors
from funcnet.kernels.optim_steps import ADAM, adam, groups, on_copies
from funcnet.kernels.threads import are_several, with_one_openmp_thread

RowsStep = Callable[[Sequence[Tensors], Tensor], Sequence[Tensors]]
"""Function from lists of params, gradients and moments, and the step, which counts this update, to new params and moments."""

_foreach_add: Callable[..., Tensors] = torchs.foreach_add
_foreach_add_: Callable[..., None] = torchs.foreach_add_
_is_fused = torchs.fused_sgd is not None

in_place = choice(
    "SGD without momentum, donated",
    {"list": NEVER, "fused": 0},
    lambda cpu: 0 if cpu.maker in ("amd", "intel") else NEVER,
)
"""Whether ``_fused_sgd_`` steps params in place: it takes 2.7 µs, the list operation 4.5.

On x86 both compute the same bits, whatever the instruction set.
"""

SHARED = 1 << 15
"""Number of elements from which several threads are used: fused kernels use all threads for each tensor, however small.

Adam's kernel on 8 tensors of up to 625 elements takes 13 µs on one thread and 24 on two, with the same bits.
"""


def sgd_in_rows(columns: Sequence[Tensors], rates: Sequence[float], donated: bool, fused: bool, **how: bool) -> RowsStep | None:
    """Return the step of SGD for columns like these; ``None`` for variants that this module does not support.

    ``rates`` are lr, momentum, dampening and decay; ``how`` has nesterov and maximize.
    """
    lr, momentum, dampening, decay = rates
    if fused and _is_fused:
        return _written(_fused_sgd(rates, how), columns, donated)
    if dampening or decay or any(how.values()):
        return None
    if momentum:
        return None if donated else lambda columns, step: _with_momentum(columns, lr, momentum)
    if not donated:
        return lambda columns, step: (_foreach_add(*columns, alpha=-lr),)
    return _sgd_in_place(lr, _on_few_threads(_fused_sgd(rates, how), columns))


def _with_momentum(columns: Sequence[Tensors], lr: float, momentum: float) -> Sequence[Tensors]:
    ps, gs, bs = columns
    bs = _foreach_add(gs, bs, alpha=momentum)
    return _foreach_add(ps, bs, alpha=-lr), bs


def _sgd_in_place(lr: float, kernel: Callable[..., None]) -> RowsStep:
    def run(columns: Sequence[Tensors], step: Tensor) -> Sequence[Tensors]:
        ps, gs = columns
        if _is_fused and not in_place.value:
            kernel(ps, gs)
        else:
            _foreach_add_(ps, gs, alpha=-lr)
        return (ps,)

    return run


def _fused_sgd(rates: Sequence[float], how: dict[str, bool]) -> Callable[..., None]:
    kernel, numbers = torchs.fused_sgd, dict(zip(("lr", "momentum", "dampening", "weight_decay"), rates, strict=True))
    return lambda ps, gs, bs=(), step=None: kernel(ps, gs, bs, **numbers, is_first_step=False, **how)


def _on_few_threads(kernel: Callable[..., None], columns: Sequence[Tensors]) -> Callable[..., None]:
    """Return the kernel, restricted to one thread if no tensor is large enough for several."""
    if any([x.numel() >= SHARED for x in columns[0]]):  # noqa: C419
        return kernel
    alone = with_one_openmp_thread(kernel)

    def run(*columns: Sequence[Tensor], **how: Tensor) -> None:
        (alone if are_several() else kernel)(*columns, **how)

    return run


def _written(kernel: Callable[..., None], columns: Sequence[Tensors], donated: bool) -> RowsStep:
    """Return the step of a kernel that writes to params and moments: the old ones if ``donated``, else copies."""
    kernel = _on_few_threads(kernel, columns)
    if donated:

        def run(columns: Sequence[Tensors], step: Tensor) -> Sequence[Tensors]:
            kernel(*columns, step=step)
            return columns[0], *columns[2:]
    else:
        parts = groups(columns)

        def run(columns: Sequence[Tensors], step: Tensor) -> Sequence[Tensors]:
            return on_copies(partial(kernel, step=step), columns, parts)

    return run


def adam_in_rows(
    columns: Sequence[Tensors], rates: Sequence[float], eps: float, maximize: bool, decoupled: bool, donated: bool
) -> RowsStep | None:
    """Return the step of Adam or, ``decoupled``, AdamW for columns like these; ``None`` without torch's kernel."""
    kernel: Callable[..., None] | None = torchs.fused_adamw if decoupled else torchs.fused_adam
    if kernel is None:
        return None
    lr, beta1, beta2, decay = rates
    numbers = {"lr": lr, "beta1": beta1, "beta2": beta2, "weight_decay": decay, "eps": eps, "maximize": maximize}

    def run(ps: Tensors, gs: Tensors, ms: Tensors, vs: Tensors, *xs: Tensors, step: Tensor) -> None:
        kernel(ps, gs, ms, vs, xs[0] if xs else (), [step] * len(ps), amsgrad=bool(xs), **numbers)

    fused, how = _written(run, columns, donated), {"eps": eps, "maximize": maximize, "decoupled": decoupled, "donated": donated}
    return lambda columns, step: adam(columns, step, rates, **how) if ADAM.value else fused(columns, step)
