"""The same nets in JAX: plain layers from stax, all others from equinox, and optimizers from optax.

jit     the whole step, with value, gradients and update, under ``jax.jit``; donated: ``donate_argnums`` for params and state
scan    ``jax.lax.scan`` over ten such steps, under ``jax.jit``

The blocks of the deep net are a ``jax.lax.scan`` of a block under ``jax.checkpoint``. A run ends with ``block_until_ready``.
Images are (N, height, width, channels), the only order for which XLA has fast convolutions on a CPU. stax's BatchNorm has no
running statistics, and equinox's LSTM has one bias where torch.nn's has two.
"""

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

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

WAYS = ("jit", "scan")

Net = tuple[Any, Callable[[Any, Any], Any]]
"""The initial params, and the function of params and x."""


def _stax(shape: tuple[int, ...], *layers: Any) -> Net:
    import jax
    from jax.example_libraries import stax

    init, apply = stax.serial(*layers)
    return init(jax.random.key(0), shape)[1], apply


def _mlp(activation: str) -> Net:
    from jax.example_libraries import stax

    layers = [layer for _, wide in SIZES for layer in (stax.Dense(wide), getattr(stax, activation))]
    return _stax((100, 2), *layers[:-1])


def _pychrot() -> Net:
    from jax.example_libraries import stax

    blocks = [layer for _, wide in PYCHROT for layer in (stax.Dense(wide), stax.Tanh, stax.BatchNorm(axis=(0,)))]
    return _stax((10, 2), *blocks, stax.Dense(2))


def _ensemble() -> Net:
    import jax
    from jax.example_libraries import stax

    layers = [layer for _, wide in SIZES for layer in (stax.Dense(wide), stax.Tanh)]
    init, apply = stax.serial(*layers[:-1])
    return jax.vmap(lambda key: init(key, (100, 2))[1])(jax.random.split(jax.random.key(0), 20)), apply


def _lenet() -> Net:
    from jax.example_libraries import stax

    convs = [
        layer
        for channels in (16, 32)
        for layer in (stax.Conv(channels, (5, 5), padding="SAME"), stax.Relu, stax.MaxPool((2, 2), (2, 2)))
    ]
    return _stax((64, 28, 28, 1), *convs, stax.Flatten, stax.Dense(128), stax.Relu, stax.Dense(10))


def _bigmlp() -> Net:
    from jax.example_libraries import stax

    return _stax((256, 784), stax.Dense(1024), stax.Relu, stax.Dense(1024), stax.Relu, stax.Dense(10))


def _conv(channels: int, size: int, stride: int = 1) -> Any:
    """Return stax's convolution without its bias."""
    import jax
    from jax.example_libraries import stax

    order = ("NHWC", "HWIO", "NHWC")
    init, _ = stax.GeneralConv(order, channels, (size, size), (stride, stride), "SAME")

    def first(key: Any, shape: Any) -> Any:
        out, (weight, _) = init(key, shape)
        return out, weight

    def apply(weight: Any, x: Any, **options: Any) -> Any:
        return jax.lax.conv_general_dilated(x, weight, (stride, stride), "SAME", dimension_numbers=order)

    return first, apply


def _block(channels: int, wider: int) -> list[Any]:
    from jax.example_libraries import stax

    stride = 1 if channels == wider else 2
    layers = stax.serial(_conv(wider, 3, stride), stax.BatchNorm(), stax.Relu, _conv(wider, 3), stax.BatchNorm())
    narrow = stax.Identity if channels == wider else stax.serial(_conv(wider, 1, stride), stax.BatchNorm())
    return [stax.FanOut(2), stax.parallel(layers, narrow), stax.FanInSum, stax.Relu]


def _resnet() -> Net:
    from jax.example_libraries import stax

    blocks = [layer for sizes in ((32, 32), (32, 64), (64, 128)) for layer in _block(*sizes)]
    head = (stax.AvgPool((8, 8)), stax.Flatten, stax.Dense(10))
    return _stax((32, 32, 32, 3), _conv(32, 3), stax.BatchNorm(), stax.Relu, *blocks, *head)


def _gpt_layers() -> Any:
    """Return the embedding and the positions, the blocks, and the head."""
    import equinox as eqx
    import jax

    keys = iter(jax.random.split(jax.random.key(0), 16))
    linear = lambda *sizes: eqx.nn.Linear(*sizes, key=next(keys))
    biases = {f"use_{part}_bias": True for part in ("query", "key", "value", "output")}
    attention = lambda: (eqx.nn.LayerNorm(WIDTH), eqx.nn.MultiheadAttention(HEADS, WIDTH, **biases, key=next(keys)))
    wide = lambda: (eqx.nn.LayerNorm(WIDTH), linear(WIDTH, 4 * WIDTH), linear(4 * WIDTH, WIDTH))
    first = (eqx.nn.Embedding(VOCABULARY, WIDTH, key=next(keys)), jax.random.normal(next(keys), (LENGTH, WIDTH)))
    return first, [(attention(), wide()) for _ in range(BLOCKS)], eqx.nn.LayerNorm(WIDTH), linear(WIDTH, VOCABULARY)


def _gpt() -> Net:
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    params, static = eqx.partition(_gpt_layers(), eqx.is_array)
    mask = jnp.tril(jnp.ones((LENGTH, LENGTH), bool))

    def row(net: Any, tokens: Any) -> Any:
        (embedding, positions), inner, norm, head = net
        x = jax.vmap(embedding)(tokens) + positions
        for (norm_1, attention), (norm_2, wide, narrow) in inner:
            h = jax.vmap(norm_1)(x)
            x = x + attention(h, h, h, mask)
            x = x + jax.vmap(lambda h, a=norm_2, b=wide, c=narrow: c(jax.nn.gelu(b(a(h)), approximate=False)))(x)
        return jax.vmap(lambda h: head(norm(h)))(x)

    def apply(params: Any, x: Any) -> Any:
        return jax.vmap(partial(row, eqx.combine(params, static)))(x).reshape(-1, VOCABULARY)

    return params, apply


def _lstm() -> Net:
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    one, other = jax.random.split(jax.random.key(0))
    params, static = eqx.partition((eqx.nn.LSTMCell(64, 128, key=one), eqx.nn.Linear(128, 10, key=other)), eqx.is_array)

    def row(net: Any, x: Any) -> Any:
        (h, _), _ = jax.lax.scan(lambda carry, x: (net[0](x, carry), None), (jnp.zeros(128), jnp.zeros(128)), x)
        return net[1](h)

    return params, lambda params, x: jax.vmap(partial(row, eqx.combine(params, static)))(x)


def _deep() -> Net:
    """Return the stacked blocks: ``lax.scan`` runs over them, and ``jax.checkpoint`` recomputes each in the backward pass."""
    import equinox as eqx
    import jax

    def block(key: Any) -> Any:
        one, other = jax.random.split(key)
        wide = eqx.nn.Linear(NARROW, 4 * NARROW, key=one), eqx.nn.Linear(4 * NARROW, NARROW, key=other)
        return eqx.filter((eqx.nn.LayerNorm(NARROW), *wide), eqx.is_array)

    static = eqx.partition(eqx.filter_eval_shape(block, jax.random.key(0)), lambda leaf: hasattr(leaf, "shape"))[1]

    @jax.checkpoint
    def row(x: Any, params: Any) -> Any:
        norm, wide, narrow = eqx.combine(params, static)
        return x + jax.vmap(lambda h: narrow(jax.nn.gelu(wide(norm(h)), approximate=False)))(x)

    def apply(params: Any, x: Any) -> Any:
        return jax.lax.scan(lambda x, p: (row(x, p), None), x, params)[0]

    return jax.vmap(block)(jax.random.split(jax.random.key(0), DEPTH)), apply


NETS: dict[str, Callable[[], Net]] = {
    "disk_mlp": lambda: _mlp("Tanh"),
    "mlp_adam": lambda: _mlp("Relu"),
    "pychrot": _pychrot,
    "ensemble20": _ensemble,
    "lenet": _lenet,
    "bigmlp": _bigmlp,
    "gpt": _gpt,
    "lstm": _lstm,
    "resnet": _resnet,
    "deep": _deep,
}


def _loss(workload: Workload, apply: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    import jax.numpy as jnp
    import optax

    def mse(params: Any, x: Any, target: Any) -> Any:
        return jnp.mean((apply(params, x) - target) ** 2)

    def cross_entropy(params: Any, x: Any, target: Any) -> Any:
        return optax.softmax_cross_entropy_with_integer_labels(apply(params, x), target).mean()

    return {"mse": mse, "cross_entropy": cross_entropy}[workload.loss]


def _optimizer(workload: Workload) -> Any:
    import optax

    kind, settings = workload.optimizer
    settings = {"learning_rate" if name == "lr" else name: value for name, value in settings.items()}
    return getattr(optax, kind.lower())(**settings)


def _parts(workload: Workload) -> tuple[Any, Any, Callable[..., Any]]:
    """Return the initial params and state, and the step."""
    import jax
    import optax

    opt = _optimizer(workload)
    if workload.name == "adam":
        params: Any = tuple(jax.random.normal(key, TENSOR) for key in jax.random.split(jax.random.key(0), TENSORS))
        gradients = lambda params, x, target: (None, x)
    else:
        params, apply = NETS[workload.name]()
        gradients = jax.value_and_grad(_loss(workload, apply))

    def step(params: Any, state: Any, x: Any, target: Any) -> Any:
        value, grads = gradients(params, x, target)
        updates, state = opt.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    return params, opt.init(params), step if workload.members == 1 else jax.vmap(step, (0, 0, None, None))


def _scanned(step: Callable[..., Any]) -> Callable[..., Any]:
    import jax

    def steps(params: Any, state: Any, xs: Any, targets: Any) -> Any:
        def one(carry: Any, batch: Any) -> Any:
            params, state, value = step(*carry, *batch)
            return (params, state), value

        (params, state), values = jax.lax.scan(one, (params, state), (xs, targets))
        return params, state, values

    return steps


class JaxTraining(Training):
    """A jitted step that is repeated with the params and the state that it returned."""

    def __init__(self, workload: Workload, way: str = "jit", donated: bool = True) -> None:
        """Draw the params and the batch."""
        import jax

        self.way = way
        self.params, self.state, step = _parts(workload)
        self.size = sum(leaf.size for leaf in jax.tree.leaves(self.params))
        x, target = jax.tree.map(lambda t: t.numpy(), workload.draw())
        x = np.moveaxis(x, 1, -1) if workload.name in ("lenet", "resnet") else x
        if way == "scan":
            step = _scanned(step)
            x, target = np.stack([x] * SCANNED), np.stack([target] * SCANNED)
        self.batch = jax.tree.map(jax.numpy.asarray, (x, target))
        self.step = jax.jit(step, donate_argnums=(0, 1) if donated else ())

    def run(self, calls: int) -> None:
        """Take steps, and wait for the last."""
        import jax

        (x, target), params, state = self.batch, self.params, self.state
        value: Any = None
        del self.params, self.state
        for _ in range(calls):
            params, state, value = self.step(params, state, x, target)
        self.params, self.state, self.last = jax.block_until_ready((params, state, value))

    def value(self) -> float | None:
        """Return the last step's loss, for an ensemble the mean."""
        if self.last is None:
            return None
        return float((self.last[-1] if self.way == "scan" else self.last).mean())


def contenders(workload: Workload, ways: tuple[str, ...] = WAYS) -> list[Contender]:
    """Return each contender; raise ``ImportError`` if JAX, equinox or optax is missing."""
    for name in ("jax", "equinox", "optax"):
        importlib.import_module(name)
    ways = tuple(way for way in ways if way == "jit" or workload.scanned)
    return [
        Contender(
            f"JAX {way}{', donated' * donated}",
            f"JAX {way}",
            partial(JaxTraining, workload, way, donated),
            SCANNED if way == "scan" else 1,
        )
        for way in ways
        for donated in (False, True)
    ]


def start(contender: Contender) -> None:
    """Trigger JAX's initialization, once per process, so that it does not count as memory of a training."""
    import jax

    jax.jit(jax.grad(jax.numpy.sin))(1.0).block_until_ready()
