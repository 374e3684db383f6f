"""Calls from the catalogues: each public class is instantiated and used, and its methods are called."""

from collections.abc import Callable, Iterator
from typing import Any

import attrs
import schedule_cases
import torch
from calling import Call
from cases import CASES
from metrics import metric_cases
from optimizer_cases import MATRICES, OPTIMIZERS, TRANSFORMS, one_of_each

import funcnet as fn
from funcnet.errors import maker_of
from funcnet.layers.custom import FunctionLayer
from funcnet.losses.loss import LossLayer
from funcnet.testing.comparison import noise_like

PARAMS = {"0": {"weight": torch.ones(3, 2), "bias": torch.ones(3)}, "1": (torch.full((2, 2), 0.5), None)}
GRADS = {"0": {"weight": torch.ones(3, 2), "bias": torch.ones(3)}, "1": (torch.full((2, 2), 0.1), None)}
MATRIX, MATRIX_GRAD = {"weight": torch.eye(3, 2)}, {"weight": torch.ones(3, 2)}
PARTS = {
    "DropConnect": ("Linear",),
    "Branching": ("branch", "parallel", "residual"),
    "TransformerStack": ("serial",),
    "Frozen": ("params",),
    "Perplexity": ("CrossEntropy",),
    "WeightedLoss": ("weighted",),
}
"""Names that an error can use besides the class itself: its parts."""
Use = Callable[[Any], Any]


def made(value: Any, use: Use, *names: str) -> Iterator[Call]:
    """Yield the call that creates a value from its fields and uses it."""
    fields = {one.alias: getattr(value, one.name) for one in attrs.fields(type(value)) if one.init and one.name[0] != "_"}
    kind = type(value)
    if fields:
        more = PARTS.get(kind.__name__, ())
        yield Call(maker_of(value), lambda **given: use(kind(**given)), fields, (kind.__name__, *names, *more))


def layers() -> Iterator[Call]:
    """Yield each type of layer once."""
    cases = {type(case.layer): case for case in reversed(CASES.values()) if not isinstance(case.layer, LossLayer)}
    for case in cases.values():
        yield from _of_layer(case.layer, case.x, case.params)


def _of_layer(layer: fn.Layer, x: Any, params: Any) -> Iterator[Call]:
    rng = fn.key(0) if layer.stochastic else None

    def trained(one: fn.Layer) -> Any:
        y, cache = one.apply(one.init(0), x, rng)
        return y, one.vjp(one.init(0), cache, y)

    y, cache = layer.apply(params, x, rng)
    gy, name, more = noise_like(y, fn.key(1)), maker_of(layer), PARTS.get(type(layer).__name__, ())
    if isinstance(layer, FunctionLayer):  # the user defines its methods
        return
    yield from made(layer, trained, *PARTS.get(type(layer).__name__, ()))
    yield Call(f"{name}.apply", layer.apply, {"params": params, "x": x, "rng": rng}, (name, *more))
    yield Call(f"{name}.__call__", layer, {"params": params, "x": x, "rng": rng}, (name, *more))
    yield Call(f"{name}.vjp", layer.vjp, {"params": params, "cache": cache, "gy": gy}, (name, *more))
    yield Call(f"{name}.init", layer.init, {"rng": fn.key(0)}, (name,))


def losses() -> Iterator[Call]:
    """Yield each type of loss once, with both of its methods."""
    cases = {type(case.layer.loss): case for case in reversed(CASES.values()) if isinstance(case.layer, LossLayer)}
    for case in cases.values():
        loss, (y, target) = case.layer.loss, case.x
        name = maker_of(loss)
        yield from made(loss, lambda one, y=y, target=target: one.value_and_grad(y, target))
        yield Call(f"{name}.__call__", loss, {"y": y, "target": target}, (name, repr(loss)))
        yield Call(f"{name}.value_and_grad", loss.value_and_grad, {"y": y, "target": target}, (name, repr(loss)))


def optimizers() -> Iterator[Call]:
    """Yield each optimizer and transform once."""
    for opt in one_of_each(OPTIMIZERS) + one_of_each(MATRICES) + one_of_each(TRANSFORMS):
        params, grads = (MATRIX, MATRIX_GRAD) if opt in MATRICES else (PARAMS, GRADS)
        if type(opt).__name__ == "ByPath":
            params = {"2": PARAMS["0"], "w": torch.ones(2, 2)}
            grads = {"2": GRADS["0"], "w": torch.ones(2, 2)}
        yield from _of_optimizer(opt, params, grads)
    for average in (fn.EMA(0.5), fn.SWA()):
        state, name = average.init(PARAMS), type(average).__name__
        yield from made(average, lambda one: one.params(one.update(one.init(PARAMS), PARAMS)))
        yield Call(f"{name}.init", average.init, {"params": PARAMS}, (name,))
        yield Call(f"{name}.update", average.update, {"state": state, "params": PARAMS}, (name,))
        yield Call(f"{name}.params", average.params, {"state": average.update(state, PARAMS)}, (name,))


def _of_optimizer(opt: Any, params: Any, grads: Any) -> Iterator[Call]:
    state, name = opt.init(params), maker_of(opt)
    if not hasattr(opt, "update"):
        return
    update = lambda one: one.update(grads, one.init(params), params)
    if type(opt).__name__ in ("SAM", "LBFGS"):
        update = lambda one: one.init(params)
    yield from made(opt, update)
    yield Call(f"{name}.init", opt.init, {"params": params}, (name,))
    if type(opt).__name__ not in ("SAM", "LBFGS"):
        yield Call(f"{name}.update", opt.update, {"grads": grads, "state": state, "params": params}, (name,))
    yield Call(f"{name}.rates", opt.rates, {"state": state}, (name,))
    if hasattr(opt, "eval_params"):
        yield Call(f"{name}.eval_params", opt.eval_params, {"state": state, "params": params}, (name,))


def schedules() -> Iterator[Call]:
    """Yield each schedule once."""
    for schedule in one_of_each(schedule_cases.ALL):
        name = maker_of(schedule)
        yield from made(schedule, lambda one: (one(0), one(3)))
        yield Call(f"{name}.__call__", schedule, {"step": 3}, (name, repr(schedule)))
    plateau = fn.ReduceOnPlateau(0.1)
    state = plateau.init()
    yield from made(plateau, lambda one: one.rate(one.update(1.0, one.init())))
    yield Call("ReduceOnPlateau.update", plateau.update, {"metric": 1.0, "state": state}, ("ReduceOnPlateau",))
    yield Call("ReduceOnPlateau.rate", plateau.rate, {"state": state}, ("ReduceOnPlateau",))


def initializers() -> Iterator[Call]:
    """Yield each initializer once."""
    kinds = [
        value
        for name, value in vars(fn).items()
        if isinstance(value, type) and issubclass(value, fn.Initializer) and value is not fn.Initializer
    ]
    for kind in kinds:
        value = kind(**{"Constant": {"value": 1.0}, "Sparse": {"sparsity": 0.5}}.get(kind.__name__, {}))
        shape = (3, 3, 3) if kind.__name__ in ("Dirac", "DeltaOrthogonal") else (3, 3)
        yield from made(value, lambda one, shape=shape: one(0, shape))
        yield Call(
            f"{kind.__name__}.__call__",
            value,
            {"rng": fn.key(0), "shape": shape, "dtype": torch.float32},
            (kind.__name__, repr(value)),
        )


def metrics() -> Iterator[Call]:
    """Yield each metric once."""
    cases = {type(case[0]): case for case in reversed(metric_cases.CASES.values())}
    for metric, y, target in cases.values():
        name, total, more = maker_of(metric), metric.total_of(y, target), PARTS.get(type(metric).__name__, ())
        yield from made(metric, lambda one, y=y, target=target: one(y, target))
        yield Call(f"{name}.__call__", metric, {"y": y, "target": target}, (name, *more))
        yield Call(f"{name}.add", metric.add, {"total": total, "y": y, "target": target}, (name, *more))
        yield Call(f"{name}.merge", metric.merge, {"total": total, "other": total}, (name,))
        yield Call(f"{name}.value", metric.value, {"total": total}, (name,))


def all_of_values() -> list[Call]:
    """Return all of these calls."""
    return [call for make in (layers, losses, optimizers, schedules, initializers, metrics) for call in make()]
