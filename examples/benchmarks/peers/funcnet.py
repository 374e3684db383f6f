"""The nets in funcnet, composed from public layers and combinators, and its kinds of steps.

eager       ``fn.train_step`` in inference mode, entered once per turn; ``fn.fit`` does the same
compiled    ``fn.compile`` of the same step
scan        ``fn.scan_steps`` of the same step, ten in one call
floor       only the kernels of an eager, donated step
donated     any of these except the floor, with ``fn.donate`` around the optimizer, and SGD with ``fused=True``
repeat      the blocks of a deep net as a ``fn.repeat``, which compiled code runs as a loop; compiled as a ``fn.serial`` they
            would take minutes
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

import funcnet as fn
from examples.benchmarks.floor import KernelsAlone
from examples.benchmarks.workloads import (
    BLOCKS,
    DEPTH,
    HEADS,
    LENGTH,
    NARROW,
    PYCHROT,
    SCANNED,
    SIZES,
    TENSOR,
    TENSORS,
    VOCABULARY,
    WIDTH,
    Contender,
    Training,
    Workload,
)

WAYS = ("eager", "compiled", "scan", "floor")


def _mlp(activation: fn.Layer) -> fn.Layer:
    return fn.serial(*[layer for sizes in SIZES for layer in (fn.Linear(*sizes), activation)][:-1])


def _pychrot() -> fn.Layer:
    blocks = [layer for sizes in PYCHROT for layer in (fn.Linear(*sizes), fn.Tanh(), fn.BatchNorm1d(20))]
    return fn.serial(*blocks, fn.Linear(20, 2))


def _lenet() -> fn.Layer:
    return fn.serial(
        *(fn.Conv2d(1, 16, 5, padding=2), fn.ReLU(), fn.MaxPool2d(2)),
        *(fn.Conv2d(16, 32, 5, padding=2), fn.ReLU(), fn.MaxPool2d(2)),
        *(fn.Flatten(), fn.Linear(32 * 7 * 7, 128), fn.ReLU(), fn.Linear(128, 10)),
    )


def _bigmlp() -> fn.Layer:
    return fn.serial(fn.Linear(784, 1024), fn.ReLU(), fn.Linear(1024, 1024), fn.ReLU(), fn.Linear(1024, 10))


def _gpt() -> fn.Layer:
    attention = fn.residual(fn.serial(fn.LayerNorm(WIDTH), fn.MultiHeadAttention(WIDTH, HEADS, is_causal=True)))
    wide = (fn.Linear(WIDTH, 4 * WIDTH), fn.GELU(), fn.Linear(4 * WIDTH, WIDTH))
    blocks = [attention, fn.residual(fn.serial(fn.LayerNorm(WIDTH), *wide))] * BLOCKS
    first = (fn.Embedding(VOCABULARY, WIDTH), fn.LearnedPositions(LENGTH, WIDTH))
    return fn.serial(*first, *blocks, fn.LayerNorm(WIDTH), fn.Linear(WIDTH, VOCABULARY), fn.Flatten(0, 1))


def _last(params: Any, x: tuple[Tensor, Any]) -> tuple[Tensor, torch.Size]:
    """Return the output of the last step, given outputs (N, T, features) and a state."""
    outputs, _ = x
    return outputs[:, -1], outputs.shape


def _last_back(params: Any, cache: torch.Size, gy: Tensor) -> tuple[Any, tuple[Tensor, None]]:
    g = gy.new_zeros(cache)
    g[:, -1] = gy
    return params, (g, None)


def _lstm() -> fn.Layer:
    return fn.serial(fn.LSTM(64, 128, batch_first=True), fn.layer(apply=_last, vjp=_last_back), fn.Linear(128, 10))


def _block(channels: int, wider: int) -> tuple[fn.Layer, ...]:
    """Return a residual block; a wider one halves height and width."""
    stride = 1 if channels == wider else 2
    layers = [fn.Conv2d(channels, wider, 3, stride, 1, bias=False), fn.BatchNorm2d(wider), fn.ReLU()]
    layers += [fn.Conv2d(wider, wider, 3, padding=1, bias=False), fn.BatchNorm2d(wider)]
    narrow = fn.serial(fn.Conv2d(channels, wider, 1, stride, bias=False), fn.BatchNorm2d(wider))
    return fn.residual(fn.serial(*layers), *[narrow] * (channels != wider)), fn.ReLU()


def _resnet() -> fn.Layer:
    stem = (fn.Conv2d(3, 32, 3, padding=1, bias=False), fn.BatchNorm2d(32), fn.ReLU())
    blocks = [layer for sizes in ((32, 32), (32, 64), (64, 128)) for layer in _block(*sizes)]
    return fn.serial(*stem, *blocks, fn.AvgPool2d(8), fn.Flatten(), fn.Linear(128, 10))


def _deep_block() -> fn.Layer:
    wide = (fn.Linear(NARROW, 4 * NARROW), fn.GELU(), fn.Linear(4 * NARROW, NARROW))
    return fn.remat(fn.residual(fn.serial(fn.LayerNorm(NARROW), *wide)))


NETS: dict[str, Callable[[], fn.Layer]] = {
    "disk_mlp": lambda: _mlp(fn.Tanh()),
    "mlp_adam": lambda: _mlp(fn.ReLU()),
    "pychrot": _pychrot,
    "ensemble20": lambda: fn.ensemble(_mlp(fn.Tanh()), 20),
    "lenet": _lenet,
    "bigmlp": _bigmlp,
    "gpt": _gpt,
    "lstm": _lstm,
    "resnet": _resnet,
    "deep": lambda: fn.serial(*[_deep_block()] * DEPTH),
}

LOOPS: dict[str, Callable[[], fn.Layer]] = {"deep": lambda: fn.repeat(_deep_block(), DEPTH)}
"""The same nets with their blocks in a loop."""

LOSSES = {"mse": fn.MSE(), "cross_entropy": fn.CrossEntropy()}

Step = Callable[..., tuple[Any, Any, Any]]


def parts(workload: Workload, donated: bool, loop: bool = False) -> tuple[Step, fn.Optimizer, Any]:
    """Return the step of a workload, its optimizer, and its initial params."""
    kind, settings = workload.optimizer
    fused = {"fused": True} if donated and kind == "SGD" else {}  # Adam is always fused
    opt = getattr(fn, kind)(**settings, **fused)
    opt = fn.donate(opt) if donated else opt
    if workload.name == "adam":
        params = tuple(fn.random.normal(fn.fold_in(0, i), TENSOR) for i in range(TENSORS))
        update: Any = lambda params, state, grads, target: (*opt.update(grads, state, params), None)
        return update, opt, params
    net, loss = (LOOPS if loop else NETS)[workload.name](), LOSSES[workload.loss]
    loss = loss if workload.members == 1 else fn.ensemble(loss, workload.members)
    return fn.train_step(net, loss, opt), opt, net.init(0)


class FuncnetTraining(Training):
    """A step that is repeated with the params and the state that it returns."""

    def __init__(
        self,
        workload: Workload,
        way: str = "eager",
        donated: bool = False,
        dtype: torch.dtype = torch.float32,
        loop: bool = False,
    ) -> None:
        """Draw the params and the batch."""
        self.way = way
        step, opt, params = parts(workload, donated, loop)
        self.params = fn.tree.cast(params, dtype)
        self.state = opt.init(self.params)
        self.batch = fn.tree.cast(workload.draw(), dtype)
        self.step, self.guard = step, torch.inference_mode if way == "eager" else torch.no_grad
        if way == "compiled":
            self.step = fn.compile(step)
        if way == "scan":
            self.step = fn.scan_steps(step, SCANNED)
            self.batch = fn.tree.map(lambda t: torch.stack([t] * SCANNED), self.batch)
        buffers = ("running_mean", "running_var", "num_batches_tracked")
        self.size = fn.tree.size([leaf for name, leaf in fn.tree.names(self.params).items() if not name.endswith(buffers)])

    def run(self, calls: int) -> None:
        """Take steps, without keeping the old params and state alive."""
        (x, target), params, state = self.batch, self.params, self.state
        value: Any = None
        del self.params, self.state
        with self.guard():
            for _ in range(calls):
                params, state, value = self.step(params, state, x, target)
        self.params, self.state, self.last = params, state, value

    def value(self) -> float | None:
        """Return the mean loss over the members; after a call of several steps, the last step's."""
        if self.last is None:
            return None
        return float((self.last[-1] if self.way == "scan" else self.last).mean())


def _alone(make: Callable[[], FuncnetTraining]) -> KernelsAlone:
    return KernelsAlone(make())


def contenders(workload: Workload, ways: tuple[str, ...] = WAYS) -> list[Contender]:
    """Return each kind of step, with the plain and with the donated optimizer."""
    found = []
    for way in ways:
        if way == "scan" and not workload.scanned:
            continue
        if way == "floor":
            eager = partial(FuncnetTraining, workload, "eager", True)
            found.append(Contender("funcnet floor", "funcnet floor", partial(_alone, eager)))
            continue
        for loop in _forms(workload, way):
            for donated in (False, True):
                label = f"funcnet {way}{', repeat' * loop}{', donated' * donated}"
                make = partial(FuncnetTraining, workload, way, donated, loop=loop)
                found.append(Contender(label, f"funcnet {way}", make, SCANNED if way == "scan" else 1))
    return found


def _forms(workload: Workload, way: str) -> tuple[bool, ...]:
    """Return the forms of the net to measure: written out, in a loop, or both."""
    if workload.name not in LOOPS:
        return (False,)
    return (False, True) if way == "eager" else (True,)


def start(contender: Contender) -> None:
    """Trigger torch's initialization, once per process, so that it does not count as memory of a training."""
    if contender.family in ("funcnet compiled", "funcnet scan"):
        fn.compile(torch.sin)(torch.ones(2))
