"""A Linear composed of operations, and counts of the work in a graph's backward pass, for the report Hotgrad.

y = x W + b is ``MatMul``, then ``Add``, which broadcasts b over the rows. Of the gradients, gW = xᵀ gy and gx = gy Wᵀ are
``MatMul``'s, and gb = Σ gy, over the rows, is ``Add``'s: the gradient of a broadcast operand is summed over the broadcast axes.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from attrs import field
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import funcnet as fn

VERBS = ("vjp", "grads", "input_grad")
CALLS: Counter[tuple[str, str]] = Counter()
"""The number of calls of ``Counted`` layers, by name and verb."""


@fn.frozen
class Weight(fn.Layer):
    """A parameter as a node of a graph: y is the parameter for every x, and x has no gradient.

    Args:
        shape (tuple[int, ...]): Shape of the parameter.
        initializer (Initializer): Initializer of the parameter. Default: ``fn.Zeros()``

    Params:
        - **value** - Tensor of ``shape``
    """

    shape: tuple[int, ...]
    initializer: fn.initializers.Initializer = field(factory=fn.Zeros)

    def init(self, rng: Any) -> Any:
        return {"value": self.initializer(rng, self.shape)}

    def apply(self, params: Any, x: Any, rng: Any = None) -> tuple[Tensor, tuple[()]]:
        return params["value"], ()

    def vjp(self, params: Any, cache: tuple[()], gy: Tensor) -> tuple[Any, None]:
        return {"value": gy}, None


def linear_of_operations(n: int, m: int) -> fn.Layer:
    """Return x W + b as a graph of two operations on x and two parameters."""
    return fn.graph(
        "x",
        w=(Weight((n, m), fn.XavierNormal()), "x"),
        b=(Weight((m,)), "x"),
        product=(fn.MatMul(), "x", "w"),
        y=(fn.Add(), "product", "b"),
    )


def as_operations(params: Any) -> Any:
    """Convert a net's params to those of a net whose Linears are composed of operations; W is the transpose of ``weight``."""
    return tuple({"w": {"value": p["weight"].t()}, "b": {"value": p["bias"]}, "product": {}, "y": {}} if p else p for p in params)


def same_numbers(
    network: Callable[[Any], fn.Layer], loss: fn.Loss, opt: fn.Optimizer, points: tuple[Tensor, Tensor], batch_size: int
) -> str:
    """Describe the difference between the two kinds of Linear after some epochs of ``fn.fit`` in float64, and gradient checks."""
    params, points = fn.tree.cast((network(fn.Linear).init(0), points), torch.float64)
    settings: Any = {"epochs": 5, "batch_size": batch_size, "key": 0, "progress": False}
    plain = fn.fit(network(fn.Linear), loss, opt, points, params=params, **settings).params
    made = fn.fit(network(linear_of_operations), loss, opt, points, params=as_operations(params), **settings).params
    gap = (fn.tree.ravel(as_operations(plain)) - fn.tree.ravel(made)).abs().max()
    checked = fn.testing.check_vjp(linear_of_operations(3, 2), fn.random.normal(0, (5, 3)))
    error = max([one or 0.0 for one in checked.values()])
    return (
        f"Linear as `{linear_of_operations(2, 25)!r}` gives the numbers of `fn.Linear`: after 5 epochs of `fn.fit` with batches "
        f"of {batch_size}, in float64, the largest difference of a weight between the two nets is {gap:.1e}. Beyond rounding, "
        f"its gradients ({', '.join(checked)}) differ from central differences by {error:.1e}."
    )


def sums_of_gradients() -> list[list[str]]:
    """Return rows for the gradients of a node used twice and of a broadcast operand."""
    twice = fn.graph("x", t=(fn.Tanh(), "x"), square=(fn.Mul(), "t", "t"), y=(fn.Add(), "square", "t"))
    broadcast = fn.graph("x", "b", y=(fn.Mul(), "x", "b"))
    x = torch.tensor([-1.0, 0.3, 0.8], dtype=torch.float64)
    rows = torch.linspace(-1, 2, 12, dtype=torch.float64).reshape(4, 3)
    once = _pairs(twice, x, lambda gx: gx, lambda v: v)
    summed = _pairs(broadcast, (rows, x), lambda gx: gx[1], lambda v: (torch.zeros_like(rows), v))
    named = [(f"t² + t with t = tanh x, used three times: x[{i}]", pair) for i, pair in enumerate(once)]
    named += [(f"x ⊙ b, with b (3,) repeated for each row of x (4, 3): b[{i}]", pair) for i, pair in enumerate(summed)]
    return [[name, *pair] for name, pair in named]


def _pairs(net: fn.Layer, x: Any, pick: Callable[[Any], Tensor], along: Callable[[Tensor], Any]) -> list[list[str]]:
    """Return each element of a gradient from ``vjp`` and from central differences."""
    params = net.init(0)
    y, cache = net.apply(params, x)
    g = pick(net.vjp(params, cache, torch.ones_like(y))[1])
    units = torch.eye(len(g), dtype=g.dtype)
    measured = [fn.testing.finite_difference(lambda z: net(params, z).sum(), x, along(v)) for v in units]
    return [[f"{a:.10f}", f"{b:.10f}"] for a, b in zip(g.tolist(), measured, strict=True)]


@fn.frozen
class Counted(fn.Layer):
    """A layer that counts the calls of its backward verbs in ``CALLS``."""

    name: str
    layer: fn.Layer

    def init(self, rng: Any) -> Any:
        return self.layer.init(rng)

    def apply(self, params: Any, x: Any, rng: Any = None) -> Any:
        return self.layer.apply(params, x, rng)

    def vjp(self, params: Any, cache: Any, gy: Any) -> Any:
        CALLS[self.name, "vjp"] += 1
        return self.layer.vjp(params, cache, gy)

    def grads(self, params: Any, cache: Any, gy: Any) -> Any:
        CALLS[self.name, "grads"] += 1
        return self.layer.grads(params, cache, gy)

    def input_grad(self, params: Any, cache: Any, gy: Any) -> Any:
        CALLS[self.name, "input_grad"] += 1
        return self.layer.input_grad(params, cache, gy)


class Kernels(TorchDispatchMode):
    """Counts the kernels that run."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def only_what_is_needed() -> list[list[str]]:
    """Return the verbs that a graph's backward verbs call on each node, and the number of kernels, on features of degree 2."""
    nodes: dict[str, tuple[Any, ...]] = {
        "products": (fn.Mul(), "x", "x"),
        "features": (fn.Concat(), "x", "products"),
        "hidden": (fn.Linear(4, 25), "features"),
        "active": (fn.ReLU(), "hidden"),
        "y": (fn.Linear(25, 2), "active"),
    }
    counted: dict[str, Any] = {name: (Counted(name, layer), *ins) for name, (layer, *ins) in nodes.items()}
    net = fn.graph("x", **counted)
    params = net.init(0)
    y, cache = net.apply(params, fn.random.uniform(0, (8, 2)))
    asked = [_asked(getattr(net, verb), params, cache, torch.ones_like(y)) for verb in VERBS]
    rows = [[f"`{name}`, {layer!r}", *[words.get(name, "nothing") for words in asked]] for name, (layer, *_) in nodes.items()]
    return [*rows, ["kernels run", *[words["kernels"] for words in asked]]]


def _asked(verb: Callable[..., Any], *arguments: Any) -> dict[str, str]:
    CALLS.clear()
    with Kernels() as kernels:
        verb(*arguments)
    return {name: f"{what} × {n}" for (name, what), n in CALLS.items()} | {"kernels": str(kernels.count)}


def errors(net: fn.Layer) -> list[str]:
    """Return the error messages for some mistakes."""
    params, x, wide = net.init(0), torch.zeros(8, 2), torch.zeros(8, 3)
    mistakes: list[Callable[[], Any]] = [
        lambda: net(params, wide),
        lambda: linear_of_operations(2, 25)(linear_of_operations(2, 25).init(0), wide),
        lambda: fn.Add()({}, (wide, x)),
        lambda: fn.graph("x", a=(fn.Add(), "x", "b"), b=(fn.Tanh(), "a")),
        lambda: fn.MSE()(net(params, x), torch.zeros(8)),
        lambda: fn.fit(net, fn.MSE(), fn.SGD(lr=0.1), (x, x), epochs=1, batch_size=0, key=0),
        lambda: fn.Linear(0, 25),
    ]
    return [_message(mistake) for mistake in mistakes]


def _message(mistake: Callable[[], Any]) -> str:
    """Return the error message for a mistake, with its notes."""
    try:
        mistake()
    except ValueError as error:
        return "\n".join([f"ValueError: {error}", *getattr(error, "__notes__", [])])
    raise AssertionError("no error was raised")
