"""A fuzzer of wrong arguments: public constructors, functions and methods are called with unsuitable values.

Every call must return, or raise one of our errors, which names the caller, the rule and what it got, or Python's own
``TypeError`` for arguments that a signature does not have.
"""

import functools
import inspect
import random
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import attrs
import numpy as np
import torch
from cases import CASES, Case

import funcnet as fn
from funcnet import tree

PACKAGE = str(Path(fn.__file__).parent)

# These write files, compile, change the process, train for long, or are for tests.
_LEFT_OUT = {"compile", "scan_steps", "kernels", "testing", "fit"}


class Wrong(NamedTuple):
    """A call whose error is not one of ours."""

    call: str
    error: BaseException


def values() -> list[Any]:
    """Return values that a user may pass by mistake, and some that are right in places."""
    return [
        None, True, -1, 0, 2, 3, 1.5, 0.5, -0.5, float("nan"), float("inf"), 1j, "a", "", "mean", b"a", object(),
        (), (1,), (2, 3), (-1, 2), ("a", "b"), [], [1, 2], {}, {"a": 1}, {"weight": None}, slice(2), range(3), {1},
        np.int64(2), np.float32(0.5), np.ones(2), np.ones((2, 3)),
        torch.tensor(3), torch.tensor(0.5), torch.ones(2), torch.ones(2, 3), torch.ones(0), torch.ones(2, dtype=torch.complex64),
        torch.tensor([1, 2]), torch.float32, "cpu", {"weight": torch.ones(3, 2), "bias": torch.ones(3)}, [torch.ones(2)],
        (torch.ones(2, 3), torch.ones(2, 3)), fn.key(0),
        fn.Linear(2, 3), fn.Linear(None, 3), fn.Tanh(), fn.Dropout(0.5), fn.serial(fn.Linear(2, 3), fn.Tanh()), fn.Linear,
        fn.MSE(), fn.CrossEntropy(), fn.SGD(0.1), fn.ClipByGlobalNorm(1.0), fn.CosineSchedule(0.1, 10), fn.initializers.Zeros(),
        (fn.Tanh(), fn.Tanh()), torch.nn.Linear(2, 3),
    ]  # fmt: skip


def callables() -> dict[str, Callable[..., Any]]:
    """Return public functions and classes by name, and the methods of losses, optimizers and schedules."""
    found = {name: value for name, value in vars(fn).items() if callable(value) and name in fn.__all__ and name not in _LEFT_OUT}
    for module in (fn.tree, fn.random):
        names = [
            name for name, value in vars(module).items() if inspect.isfunction(value) and value.__module__ == module.__name__
        ]
        found |= {f"{module.__name__}.{name}": getattr(module, name) for name in names if not name.startswith("_")}
    return {name: value for name, value in found.items() if not inspect.isabstract(value)} | dict(_methods())


def _methods() -> Iterator[tuple[str, Callable[..., Any]]]:
    for value in (fn.MSE(), fn.BCEWithLogits(), fn.CrossEntropy()):
        yield f"{value}()", value.__call__
        yield f"{value}.value_and_grad", value.value_and_grad
    for value in (
        fn.SGD(0.1, momentum=0.9),
        fn.Adam(0.1),
        fn.ClipByGlobalNorm(1.0),
        fn.ClipByValue(1.0),
        fn.chain(fn.ClipByGlobalNorm(1.0), fn.SGD(0.1)),
    ):
        yield f"{value}.init", value.init
        yield f"{value}.update", value.update
    for value in (
        fn.ConstantSchedule(0.1),
        fn.LinearSchedule(0.1, 0.0, 10),
        fn.CosineSchedule(0.1, 10),
        fn.StepSchedule(0.1, 3, 0.5),
    ):
        yield f"{value}()", value.__call__
    for value in (
        fn.initializers.XavierNormal(),
        fn.initializers.Normal(),
        fn.initializers.Zeros(),
        fn.initializers.Orthogonal(),
    ):
        yield f"{value}()", value.__call__
    step = fn.train_step(fn.Linear(2, 3), fn.MSE(), fn.SGD(0.1))
    yield "train_step()", step.__call__
    yield "value_and_grads()", fn.value_and_grads(fn.Linear(2, 3), fn.MSE()).__call__


def trials(count: int, seed: int) -> Iterator[Wrong | None]:
    """Call each of the callables ``count`` times; yield each wrong call, or ``None``."""
    chance = random.Random(seed)
    for name, f in callables().items():
        for _ in range(count):
            yield _trial(name, f, *_arguments(f, chance))


def _arguments(f: Callable[..., Any], chance: random.Random) -> tuple[list[Any], dict[str, Any]]:
    """Draw a value for each argument without a default, and for some of the others."""
    pool, positional, named = values(), [], {}
    for one in inspect.signature(f).parameters.values():
        if one.kind is one.VAR_POSITIONAL:
            positional += chance.choices(pool, k=chance.randrange(3))
        elif one.kind is one.VAR_KEYWORD:
            named |= {"other": chance.choice(pool)} if chance.random() < 0.3 else {}
        elif one.default is one.empty or chance.random() < 0.2:
            by_name = one.kind is one.KEYWORD_ONLY or one.default is not one.empty
            if by_name:
                named[one.name] = chance.choice(pool)
            else:
                positional.append(chance.choice(pool))
    return positional, named


def nearly_right(count: int, seed: int) -> Iterator[Wrong | None]:
    """Call what works with one argument replaced, ``count`` times each: fields of layers, and arguments of functions."""
    chance = random.Random(seed)
    for kind, case in {type(case.layer): case for case in CASES.values()}.items():
        fields = [one.name for one in attrs.fields(kind) if one.init and not one.name.startswith("_")]
        for _ in range(count if fields else 0):
            change = {chance.choice(fields): chance.choice(values())}
            yield _trial(f"{case.layer}.replace", functools.partial(_used, case), [], change)
    for name, (f, arguments) in _working().items():
        for _ in range(count):
            wrong = chance.choice([*arguments])
            yield _trial(name, f, [], {**arguments, wrong: chance.choice(values())})


def _used(case: Case, **change: Any) -> None:
    """Make a layer with another value of a field, and use it."""
    layer = case.layer.replace(**change)
    try:
        params = layer.init(0)
        layer.apply(params, tree.map(lambda one: one.float() if one.is_floating_point() else one, case.x), 0)
    except MemoryError:
        pass
    repr(layer)


LABELS = torch.tensor([0, 1, 2, 0])
METRICS = {
    **dict.fromkeys(
        [fn.Accuracy(), fn.Accuracy(2), fn.F1(), fn.AUROC(), fn.AUROC(3), fn.CalibrationError(), fn.Perplexity()], LABELS
    ),
    **dict.fromkeys([fn.R2(), fn.MeanAbsoluteError(), fn.Precision(multilabel=True)], torch.ones(4, 3)),
}


def _working() -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
    """Return calls that work, by name: a function and its arguments."""
    net, loss, opt = fn.Linear(2, 3), fn.MSE(), fn.SGD(0.1, momentum=0.9)
    params, x, y = net.init(0), torch.ones(4, 2), torch.ones(4, 3)
    grads = fn.tree.map(torch.ones_like, params)
    data = {"net": net, "loss": loss, "data": (x, y)}
    step = {"state": opt.init(params), "params": params}
    clip = fn.chain(fn.ClipByGlobalNorm(1.0), fn.Adam(0.1))
    return {
        "fit": (fn.fit, {**data, "opt": opt, "epochs": 1, "batch_size": 2, "key": 0, "progress": False, "metrics": (), "drop_last": False, "epochs_done": 0, "validation": None, **step}),
        "evaluate": (fn.evaluate, {**data, "params": params, "batch_size": 2, "metrics": ()}),
        "update": (opt.update, {"grads": grads, **step}),
        "chained update": (clip.update, {"grads": grads, "params": params, "state": clip.init(params)}),
        "train_step": (fn.train_step(net, loss, opt), {**step, "x": x, "target": y}),
        "value_and_grads": (fn.value_and_grads(net, loss), {"params": params, "x": x, "target": y}),
        "loss": (loss.value_and_grad, {"y": y, "target": y}),
        "cross entropy": (fn.CrossEntropy().value_and_grad, {"y": y, "target": LABELS}),
        "accuracy": (fn.accuracy, {"y": y, "target": LABELS, "ignore_index": -100}),
        **{f"{metric}": (metric, {"y": y, "target": target}) for metric, target in METRICS.items()},
        "merge": (fn.F1().merge, {"total": fn.F1().total_of(y, LABELS), "other": fn.F1().start()}),
        "metrics_of": (fn.metrics_of, {"several": fn.R2(), "one": fn.accuracy}),
        "infer_sizes": (fn.infer_sizes, {"net": fn.Linear(None, 3), "x": x}),
        "output_shape": (fn.output_shape, {"net": net, "x": (4, 2), "dtype": None}),
        "pad_sequence": (fn.pad_sequence, {"sequences": [x, x[:2]], "batch_first": True, "padding_value": 0.0}),
        "pack_padded": (fn.pack_padded, {"x": x, "lengths": [4, 2]}),
        "pad_packed": (fn.pad_packed, {"data": x, "lengths": [3, 1], "total_length": 3}),
        "tied": (fn.tied, {"net": fn.serial(net, net)}),
        "tree.add": (fn.tree.add, {"a": params, "b": grads}),
        "tree.map": (fn.tree.map, {"f": torch.add, "tree": params}),
        "tree.unravel": (fn.tree.unravel, {"vector": torch.ones(9), "like": params}),
        "apply": (net.apply, {"params": params, "x": x, "rng": 0}),
        "uniform": (fn.random.uniform, {"rng": 0, "shape": (2,), "low": 0.0, "high": 1.0, "dtype": None}),
        "normal": (fn.random.normal, {"rng": 0, "shape": (2,), "mean": 0.0, "std": 1.0, "dtype": None}),
        "split": (fn.split, {"rng": 0, "n": 2}),
    }  # fmt: skip


def _trial(name: str, f: Callable[..., Any], positional: list[Any], named: dict[str, Any]) -> Wrong | None:
    try:
        with torch.random.fork_rng():
            f(*positional, **named)
    except Exception as error:
        return None if is_good(error) else Wrong(_written(name, positional, named), error)
    return None


def is_good(error: BaseException) -> bool:
    """Return whether an error names the caller, the rule and what it got, and was raised by this package."""
    raised = traceback.extract_tb(error.__traceback__)[-1].filename
    if not isinstance(error, (ValueError, TypeError, LookupError)) or not str(error):
        return False
    if "argument" in str(error) and isinstance(error, TypeError) and ("()" in str(error) or "unexpected" in str(error)):
        return True
    return raised.startswith(PACKAGE) and (", got " in str(error) or "; there are" in str(error) or "must" in str(error))


def _written(name: str, positional: list[Any], named: dict[str, Any]) -> str:
    words = [repr(one) for one in positional] + [f"{key}={one!r}" for key, one in named.items()]
    return f"{name}({', '.join(words)})".replace("\n", " ")
