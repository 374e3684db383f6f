"""The twins of funcnet's nets in torch.nn, with the same parameters by name, and torch.nn's kinds of steps.

eager       autograd and the optimizer of ``torch.optim``, in each of its implementations
compiled    ``torch.compile`` of net and loss as one graph, and of its backward graph; the fused optimizer is not compiled. The
            deep net is left out, as its hundred blocks take minutes

For the workload of only an optimizer, compiled is ``torch.compile`` of its ``step``. For the ensemble, eager is
``torch.func.vmap`` of ``torch.func.grad`` with handwritten SGD, and compiled is ``torch.compile`` of that whole step.
"""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from examples.benchmarks.workloads import (
    BLOCKS,
    DEPTH,
    HEADS,
    LENGTH,
    NARROW,
    PYCHROT,
    SIZES,
    TENSOR,
    TENSORS,
    VOCABULARY,
    WIDTH,
    Contender,
    Training,
    Workload,
)

WAYS = ("eager", "compiled")
OPTIMIZERS: dict[str, dict[str, bool]] = {"default": {}, "foreach": {"foreach": True}, "fused": {"fused": True}}


class Residual(nn.Sequential):
    """The sum of two modules' outputs."""

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Add them."""
        total: Tensor = self[0](x) + self[1](x)
        return total


class Recomputed(Residual):
    """A residual block that keeps only its input."""

    def forward(self, x: Tensor) -> Tensor:
        """Add, and recompute in the backward pass."""
        y: Tensor = checkpoint(super().forward, x, use_reentrant=False, preserve_rng_state=False)
        return y


class Positions(nn.Embedding):
    """A learned vector added for each step."""

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Add the vectors of the first steps."""
        return x + self.weight[: x.shape[1]]


class CausalAttention(nn.Module):
    """Attention as usually written for speed, with the parameters of ``nn.MultiheadAttention``, which copies more."""

    def __init__(self, width: int, heads: int) -> None:
        """Make the parameters."""
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(3 * width, width)))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Compute attention."""
        n, length, width = x.shape
        qkv = nn.functional.linear(x, self.in_proj_weight, self.in_proj_bias).view(n, length, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        out: Tensor = self.out_proj(y.transpose(1, 2).reshape(n, length, width))
        return out


class Last(nn.Module):
    """The last step's output of an LSTM."""

    def forward(self, x: tuple[Tensor, Any]) -> Tensor:
        """Take it."""
        return x[0][:, -1]


def _mlp(activation: type[nn.Module]) -> nn.Module:
    return nn.Sequential(*[module for sizes in SIZES for module in (nn.Linear(*sizes), activation())][:-1])


def _pychrot() -> nn.Module:
    blocks = [module for sizes in PYCHROT for module in (nn.Linear(*sizes), nn.Tanh(), nn.BatchNorm1d(20))]
    return nn.Sequential(*blocks, nn.Linear(20, 2))


def _lenet() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(32 * 7 * 7, 128), nn.ReLU(), nn.Linear(128, 10)),
    )


def _bigmlp() -> nn.Module:
    return nn.Sequential(nn.Linear(784, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10))


def _gpt() -> nn.Module:
    blocks = []
    for _ in range(BLOCKS):
        wide = (nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))
        attention = nn.Sequential(nn.LayerNorm(WIDTH), CausalAttention(WIDTH, HEADS))
        blocks += [Residual(attention, nn.Identity()), Residual(nn.Sequential(nn.LayerNorm(WIDTH), *wide), nn.Identity())]
    first = (nn.Embedding(VOCABULARY, WIDTH), Positions(LENGTH, WIDTH))
    return nn.Sequential(*first, *blocks, nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VOCABULARY), nn.Flatten(0, 1))


def _lstm() -> nn.Module:
    return nn.Sequential(nn.LSTM(64, 128, batch_first=True), Last(), nn.Linear(128, 10))


def _block(channels: int, wider: int) -> tuple[nn.Module, ...]:
    stride = 1 if channels == wider else 2
    layers = [nn.Conv2d(channels, wider, 3, stride, 1, bias=False), nn.BatchNorm2d(wider), nn.ReLU()]
    layers += [nn.Conv2d(wider, wider, 3, padding=1, bias=False), nn.BatchNorm2d(wider)]
    narrow = nn.Sequential(nn.Conv2d(channels, wider, 1, stride, bias=False), nn.BatchNorm2d(wider))
    return Residual(nn.Sequential(*layers), nn.Identity() if channels == wider else narrow), nn.ReLU()


def _resnet() -> nn.Module:
    stem = (nn.Conv2d(3, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
    blocks = [module for sizes in ((32, 32), (32, 64), (64, 128)) for module in _block(*sizes)]
    return nn.Sequential(*stem, *blocks, nn.AvgPool2d(8), nn.Flatten(), nn.Linear(128, 10))


def _deep() -> nn.Module:
    wide = lambda: (nn.Linear(NARROW, 4 * NARROW), nn.GELU(), nn.Linear(4 * NARROW, NARROW))
    return nn.Sequential(*[Recomputed(nn.Sequential(nn.LayerNorm(NARROW), *wide()), nn.Identity()) for _ in range(DEPTH)])


def _tensors() -> nn.Module:
    return nn.ParameterList([torch.randn(TENSOR) for _ in range(TENSORS)])


MODULES: dict[str, Callable[[], nn.Module]] = {
    "disk_mlp": lambda: _mlp(nn.Tanh),
    "mlp_adam": lambda: _mlp(nn.ReLU),
    "pychrot": _pychrot,
    "ensemble20": lambda: _mlp(nn.Tanh),
    "lenet": _lenet,
    "bigmlp": _bigmlp,
    "gpt": _gpt,
    "lstm": _lstm,
    "adam": _tensors,
    "resnet": _resnet,
    "deep": _deep,
}
LOSSES: dict[str, Callable[..., Tensor]] = {"mse": nn.functional.mse_loss, "cross_entropy": nn.functional.cross_entropy}


class TorchTraining(Training):
    """A module trained with autograd."""

    def __init__(self, workload: Workload, way: str = "eager", kind: str = "fused", dtype: torch.dtype = torch.float32) -> None:
        """Make the module and draw the batch."""
        torch.manual_seed(0)
        self.module = MODULES[workload.name]().to(dtype)
        self.size = sum(p.numel() for p in self.module.parameters())
        name, settings = workload.optimizer
        self.optimizer = getattr(torch.optim, name)(self.module.parameters(), **settings, **OPTIMIZERS[kind])
        self.batch = _cast(workload.draw(), dtype)
        self.last: Tensor | None = None
        self.forward: Callable[[Any, Any], Tensor] | None = self._forward(LOSSES.get(workload.loss), way == "compiled")
        self.update = self.optimizer.step
        if workload.name == "adam":
            self._give_gradients(way == "compiled")

    def _forward(self, loss: Callable[..., Tensor] | None, compiled: bool) -> Callable[[Any, Any], Tensor]:
        def forward(x: Tensor, target: Tensor) -> Tensor:
            assert loss is not None
            return loss(self.module(x), target)

        return torch.compile(forward, dynamic=False) if compiled else forward  # an LSTM cannot become a graph

    def _give_gradients(self, compiled: bool) -> None:
        for p, g in zip(self.module.parameters(), self.batch[0], strict=True):
            p.grad = g
        self.forward = None
        if compiled:
            self.update = torch.compile(self.optimizer.step)

    def run(self, calls: int) -> None:
        """Reset the gradients, run forward, backward and the optimizer."""
        (x, target), forward, update = self.batch, self.forward, self.update
        for _ in range(calls):
            if forward is not None:
                self.optimizer.zero_grad()
                value = forward(x, target)
                value.backward()
                self.last = value.detach()
            update()

    def value(self) -> float | None:
        """Return the loss of the last step."""
        return None if self.last is None else float(self.last)


class EnsembleTraining(Training):
    """Nets trained at once with ``torch.func``."""

    def __init__(self, workload: Workload, way: str = "eager", dtype: torch.dtype = torch.float32) -> None:
        """Stack the members' parameters, and make the step."""
        torch.manual_seed(0)
        modules = [MODULES[workload.name]().to(dtype) for _ in range(workload.members)]
        self.params, _ = torch.func.stack_module_state(modules)
        self.params = {name: p.detach() for name, p in self.params.items()}
        self.size = sum(p.numel() for p in self.params.values())
        self.batch = _cast(workload.draw(), dtype)
        self.step = _ensemble_step(modules[0], LOSSES[workload.loss], **workload.optimizer[1])
        if way == "compiled":
            self.step = torch.compile(self.step, fullgraph=True, dynamic=False)

    def run(self, calls: int) -> None:
        """Take steps, each from the last result."""
        for _ in range(calls):
            self.params, self.last = self.step(self.params, *self.batch)

    def value(self) -> float | None:
        """Return the mean loss of the members."""
        return float(self.last.mean())


def _ensemble_step(module: nn.Module, loss: Callable[..., Tensor], lr: float) -> Callable[..., Any]:
    def value(params: dict[str, Tensor], x: Tensor, target: Tensor) -> Tensor:
        return loss(torch.func.functional_call(module, params, (x,)), target)

    gradients = torch.func.vmap(torch.func.grad_and_value(value), in_dims=(0, None, None))

    def step(params: dict[str, Tensor], x: Tensor, target: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        grads, values = gradients(params, x, target)
        return {name: p - lr * grads[name] for name, p in params.items()}, values

    return step


def _cast(batch: Any, dtype: torch.dtype) -> Any:
    if isinstance(batch, tuple):
        return tuple(_cast(entry, dtype) for entry in batch)
    return batch.to(dtype) if isinstance(batch, Tensor) and batch.is_floating_point() else batch


def contenders(workload: Workload, ways: tuple[str, ...] = WAYS) -> list[Contender]:
    """Return each kind of step, eager with each implementation of the optimizer."""
    kinds = [("eager", kind) for kind in OPTIMIZERS] + [("compiled", "fused")]
    if workload.name == "deep":
        kinds.pop()
    if workload.name == "adam":
        kinds[-1:] = [("compiled", "foreach")]  # torch recommends compiling this one
    if workload.members > 1:
        made = {("eager", "vmap of grad"): EnsembleTraining, ("compiled", "vmap of grad"): EnsembleTraining}
        return [
            Contender(f"torch.nn {w}, {k}", f"torch.nn {w}", partial(m, workload, w)) for (w, k), m in made.items() if w in ways
        ]
    return [
        Contender(f"torch.nn {w}, {k}", f"torch.nn {w}", partial(TorchTraining, workload, w, k)) for w, k in kinds if w in ways
    ]


def start(contender: Contender) -> None:
    """Trigger torch's initialization, once per process, so that it does not count as memory of a training."""
    if contender.family == "torch.nn compiled":
        torch.compile(torch.sin)(torch.ones(2, requires_grad=True)).sum().backward()


def flops(workload: Workload) -> int:
    """Count the multiplications and additions of products and convolutions in a step, forward and backward.

    Attention and recurrence are counted by their products, including all scores, although causal attention masks half of them.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    if workload.name == "adam":
        return 0
    training = EnsembleTraining(workload) if workload.members > 1 else TorchTraining(workload, kind="default")
    with (
        warnings.catch_warnings(action="ignore"),  # warnings about Intel GPUs, which it looks for
        FlopCounterMode(display=False) as counter,
        sdpa_kernel(SDPBackend.MATH),
        torch.backends.mkldnn.flags(enabled=False),
    ):
        training.run(1)
    return int(counter.get_total_flops())
