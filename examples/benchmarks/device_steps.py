"""Train steps on one device: funcnet beside torch.nn, in float32, with TF32 and in bfloat16, with peak memory.

A step is eager or compiled; ``graphs`` replays CUDA graphs, ``launched`` launches each kernel. A turn ends with a
synchronization, so its wall time includes the device's. The most important contenders come first, as time may run out.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from attrs import frozen

import funcnet as fn
from examples.benchmarks import measure
from examples.benchmarks.device_time import LEAST, Budget, limited
from examples.benchmarks.peers import funcnet, torch_nn
from examples.benchmarks.workloads import Contender, Training, Workload
from funcnet.kernels.choices import forced

HALF = torch.bfloat16


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def precision(tf32: bool) -> Iterator[None]:
    """Allow products and convolutions to use TF32 or not; torch's default allows it for convolutions only."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


@frozen
class Way:
    """The way in which steps are taken.

    ``mode`` is "eager", "graphs" or "launched", ``kind`` the form of the optimizer, and ``numbers`` the precision.
    """

    mode: str
    kind: str = ""
    numbers: str = "float32"

    def label(self, peer: str) -> str:
        """Return the words for the table."""
        return ", ".join(filter(None, (f"{peer} {self.mode}", self.kind, self.numbers)))


OURS = (
    Way("eager"),
    Way("eager", "donated"),
    Way("graphs"),
    Way("graphs", "", "bfloat16"),
    Way("launched", "donated"),
    Way("launched"),
    Way("eager", "donated", "bfloat16"),
    Way("graphs", "", "TF32"),
    Way("eager", "donated", "TF32"),
)
THEIRS = (
    Way("eager", "fused"),
    Way("eager", "foreach"),
    Way("graphs", "fused"),
    Way("graphs", "fused", "bfloat16"),
    Way("launched", "fused"),
    Way("eager", "default"),
    Way("eager", "fused", "bfloat16"),
    Way("graphs", "fused", "TF32"),
    Way("eager", "fused", "TF32"),
)


class Ours(Training):
    """A training with funcnet on the device."""

    def __init__(self, workload: Workload, way: Way, device: torch.device) -> None:
        """Draw params and batch in main memory, the same for all contenders, and move them to the device."""
        self.way, self.device = way, device
        step, opt, params = self._parts(workload)
        self.params = fn.tree.to(params, device)
        is_graph = way.mode == "graphs"  # counters in main memory would be copied at each replay
        self.state = fn.tree.map(lambda x: x.to(device) if x.dim() or is_graph else x, opt.init(self.params))
        self.batch = fn.tree.to(workload.draw(), device)
        self.step = step if way.mode == "eager" else fn.compile(step)
        self.size = fn.tree.size(self.params)
        self.last: Any = None

    def _parts(self, workload: Workload) -> tuple[Any, fn.Optimizer, Any]:
        loops = workload.name in funcnet.LOOPS and self.way.mode != "eager"
        step, opt, params = funcnet.parts(workload, self.way.kind == "donated", loops)
        if self.way.numbers != "bfloat16":
            return step, opt, params
        net, loss = (funcnet.LOOPS if loops else funcnet.NETS)[workload.name](), funcnet.LOSSES[workload.loss]
        loss = loss if workload.members == 1 else fn.ensemble(loss, workload.members)
        return fn.train_step(fn.cast(net, HALF), loss, opt), opt, params

    def run(self, calls: int) -> None:
        """Take steps, and wait for the device."""
        (x, target), params, state = self.batch, self.params, self.state
        guard = torch.inference_mode if self.way.mode == "eager" else torch.no_grad
        graphs = forced("CUDA graphs", "replayed" if self.way.mode == "graphs" else "launched")
        with guard(), precision(self.way.numbers == "TF32"), graphs:
            for _ in range(calls):
                params, state, self.last = self.step(params, state, x, target)
        synchronize(self.device)
        self.params, self.state = params, state

    def value(self) -> float | None:
        """Return the loss of the last step."""
        return None if self.last is None else float(self.last.mean())


class Theirs(Training):
    """A training with torch.nn on the device."""

    def __init__(self, workload: Workload, way: Way, device: torch.device) -> None:
        """Make the module, move it and the batch to the device, and make the optimizer."""
        self.way, self.device = way, device
        kind: Any = torch_nn.EnsembleTraining if workload.members > 1 else torch_nn.TorchTraining
        self.inner = kind(workload)
        self.size = self.inner.size
        self.inner.batch = fn.tree.map(lambda x: x.to(device), self.inner.batch)
        if workload.members > 1:
            self.inner.params = {name: p.to(device) for name, p in self.inner.params.items()}
            self.inner.step = self._compiled(self.inner.step)
            return
        module, (name, settings) = self.inner.module.to(device), workload.optimizer
        form = torch_nn.OPTIMIZERS[way.kind]
        self.inner.optimizer = getattr(torch.optim, name)(module.parameters(), **settings, **form)
        self.inner.update = self.inner.optimizer.step
        if workload.name == "adam":
            self.inner._give_gradients(False)
            self.inner.update = self._compiled(self.inner.optimizer.step)
        else:
            self.inner.forward = self._under_autocast(self._compiled(self.inner.forward))

    def _compiled(self, work: Callable[..., Any]) -> Callable[..., Any]:
        if self.way.mode == "eager":
            return work
        mode = "reduce-overhead" if self.way.mode == "graphs" else "default"
        return torch.compile(work, dynamic=False, mode=mode)

    def _under_autocast(self, work: Callable[..., Any]) -> Callable[..., Any]:
        if self.way.numbers != "bfloat16":
            return work

        def forward(x: Any, target: Any) -> Any:
            with torch.autocast(self.device.type, HALF):
                return work(x, target)

        return forward

    def run(self, calls: int) -> None:
        """Take steps, and wait for the device; outputs of a replayed graph are dropped before the next step."""
        with precision(self.way.numbers == "TF32"):
            for _ in range(calls):
                if self.way.mode == "graphs":
                    torch.compiler.cudagraph_mark_step_begin()
                self.inner.run(1)
        synchronize(self.device)
        if isinstance(self.inner, torch_nn.EnsembleTraining) and self.way.mode == "graphs":
            self.inner.params = {name: p.clone() for name, p in self.inner.params.items()}

    def value(self) -> float | None:
        """Return the loss of the last step."""
        value: float | None = self.inner.value()
        return value


def contenders(workload: Workload, device: torch.device) -> list[Contender]:
    """Return the contenders of funcnet and torch.nn alternately, if they suit the workload and the device."""
    found = []
    for ours, theirs in zip(OURS, THEIRS, strict=True):
        for peer, make, way in (("funcnet", Ours, ours), ("torch.nn", Theirs, theirs)):
            if _makes_sense(peer, way, workload, device):
                family = peer if way.numbers == "float32" else f"{peer}-{way.numbers}"
                found.append(Contender(way.label(peer), family, partial(make, workload, way, device)))
    return found


def _makes_sense(peer: str, way: Way, workload: Workload, device: torch.device) -> bool:
    on_gpu, is_torch = device.type == "cuda", peer == "torch.nn"
    if not on_gpu and (way.mode == "graphs" or way.numbers == "TF32"):
        return False
    if workload.name == "adam" and way.numbers != "float32":
        return False
    if is_torch and workload.name == "deep" and way.mode != "eager":  # it takes minutes to compile
        return False
    if is_torch and workload.members > 1:  # handwritten SGD, in one form; graphs would overwrite its params
        return way.kind == "fused" and way.mode != "graphs" and way.numbers == "float32"
    return True


def measured(workload: Workload, device: torch.device, budget: Budget, rounds: int, turn: float) -> dict[str, Any]:
    """Measure a workload: return rows of contenders, and notes on those that failed or for which there was no time."""
    ready: list[measure.Ready] = []
    notes: list[str] = []
    peaks: dict[str, float] = {}
    torch.compiler.reset()  # Dynamo compiles a function of a peer at most 8 times
    for contender in contenders(workload, device):
        if budget.left <= 0 and ready:
            notes.append(f"{contender.label} is left out: no time was left")
            continue
        try:
            with limited(max(budget.left, LEAST)):
                one, peaks[contender.label] = _prepared(contender, ready, device, turn)
            ready.append(one)
        except Exception as error:
            notes.append(f"{contender.label} is left out: {measure.describe_error(error)}")
            error.__traceback__ = None  # its frames keep device memory alive
        free(device)
    rows = measure.rounds(ready, _affordable(ready, rounds, budget)) if ready else []
    for row in rows:
        row["memory"] = peaks[row["label"]]
        del row["times"]
    return {"workload": workload.name, "rows": rows, "notes": notes}


def _affordable(ready: list[measure.Ready], rounds: int, budget: Budget) -> int:
    """Run a round, and return the number of rounds that the time allows: at least 3, at most ``rounds``."""
    began = budget.left
    measure.rounds(ready, 1)
    return min(rounds, max(3, int(budget.left / max(began - budget.left, 1e-9))))


def _prepared(contender: Contender, ready: list[measure.Ready], device: torch.device, turn: float) -> tuple[measure.Ready, float]:
    """Make a training, take ten steps, compare the loss, and measure its peak memory in MB."""
    before = held(device)
    training = contender.make()
    training.run(10)
    loss = training.value()
    measure.require_the_same(contender, loss, ready)
    begin_peak(device)
    training.run(3)
    peak = (peak_of(device) - before) / 2**20
    return measure.Ready(contender, training, loss, measure.calls_of(training.run, turn)), peak


def held(device: torch.device) -> int:
    """Return the bytes in use by the GPU's allocator, or resident in main memory."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else measure.resident()


def begin_peak(device: torch.device) -> None:
    """Reset the peak."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        measure.begin_peak()


def peak_of(device: torch.device) -> int:
    """Return the peak in bytes."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else measure.peak()


def free(device: torch.device) -> None:
    """Free unused memory."""
    gc.collect()
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        if device.type == "cuda":
            torch.cuda.empty_cache()
