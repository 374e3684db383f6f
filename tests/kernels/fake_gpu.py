"""Run the catalogues on a fake GPU: ``python fake_gpu.py WHAT DTYPE NAME...`` prints the errors by name, as JSON.

Fake tensors have a shape, a dtype and a device, but no values. A kernel rejects fake tensors on two devices, as on a GPU, and
reading a value fails where a GPU would make the program wait. The device is torch's device for backends in Python, since a build
of torch without CUDA cannot index fake CUDA tensors. The device is set up for the whole process, so tests run this as a program.

WHAT is ``layers``, ``optimizers``, ``forms`` or ``metrics``; without names all cases run. ``layers`` runs forward and backward,
with both halves of the VJP. ``optimizers`` takes two steps, plain with the counters in main memory and donated with the counters
on the GPU; ``forms`` also runs the other two combinations.
"""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any
from unittest import mock

import torch
from optimizer_cases import MATRICES, OPTIMIZERS, TRANSFORMS
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils import backend_registration

import funcnet as fn
from funcnet import tree
from funcnet.kernels import aliasing
from funcnet.testing.comparison import everything, run

DEVICE = "privateuseone"
NET = fn.serial(fn.Linear(3, 4), fn.Tanh(), fn.Linear(4, 2))
READING = (fn.LBFGS, fn.SAM)
"""Optimizers that evaluate the loss at other params, for which a step provides the loss."""


class FakeMode(FakeTensorMode):
    """Fake tensors that never request memory from the device itself."""

    avoid_device_init = True


def on_gpu(mode: FakeMode, values: Any) -> Any:
    """Return a tree on the fake GPU."""

    def moved(x: Tensor) -> Tensor:
        return FakeTensor(mode, torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta"), torch.device(DEVICE, 0))

    return tree.map(moved, values)


@contextlib.contextmanager
def fake_gpu() -> Iterator[Callable[[Any], Any]]:
    """Yield the function that moves trees to the GPU; the check for shared memory is off, since fake tensors have no memory."""
    with FakeMode(allow_non_fake_inputs=True) as mode, torch.no_grad():
        modules = [module for module in sys.modules.values() if getattr(module, "overlapping", None) is aliasing.overlapping]
        with contextlib.ExitStack() as stack:
            for module in modules:
                stack.enter_context(mock.patch.object(module, "overlapping", return_value=set()))
            yield lambda values: on_gpu(mode, values)


def require_there(values: Any) -> None:
    """Raise an error if a tensor is on another device."""
    for path, leaf in tree.names(values).items():
        if isinstance(leaf, Tensor) and leaf.device.type != DEVICE:
            raise RuntimeError(f"{path} is on {leaf.device}")


def try_layer(case: Any, dtype: torch.dtype) -> None:
    """Run forward and backward."""
    with fake_gpu() as move:
        params, x, key = move(tree.cast((case.params, case.x, fn.key(1)), dtype))
        y, _ = run(case.layer, params, x, key)
        gy = tree.map(lambda leaf: torch.ones_like(leaf) if leaf.is_floating_point() else None, y)
        require_there(everything(case.layer, params, x, gy, key))
        if case.layer.stochastic:
            run(case.layer, params, x, fn.key(1))  # the key is in main memory, like those of ``fn.key``
        require_there(case.layer.init(key))


FORMS = ((False, False), (True, True), (False, True), (True, False))
"""The forms of a step: whether it is donated, and whether its counters are on the GPU. Only ``forms`` uses all of them."""


def try_optimizer(opt: fn.Optimizer, dtype: torch.dtype, forms: Sequence[tuple[bool, bool]] = FORMS[:2]) -> None:
    """Take two steps in each form; every leaf must stay where it is."""
    shapes = {"a": torch.ones(3, 4), "b": torch.ones(2, 5)} if opt in MATRICES else NET.init(0)
    for donated, counters_too in forms:
        with fake_gpu() as move:
            params = move(tree.cast(shapes, dtype))
            form = fn.donate(opt) if donated else opt
            state = form.init(params)
            state = move(state) if counters_too else state
            for _ in range(2):
                before = [leaf.device for leaf in tree.leaves((params, state))]
                params, state = form.update(tree.map(torch.ones_like, params), state, params)
                after = [leaf.device for leaf in tree.leaves((params, state))]
                assert before == after, "a leaf was moved"


def try_metric(case: Any, dtype: torch.dtype) -> None:
    """Accumulate two batches."""
    metric, y, target = case
    with fake_gpu() as move:
        y, target = move(tree.cast((y, target), dtype))
        total = metric.add(metric.add(metric.start(), y, target), y, target)
        assert tree.leaves(total)


def catalogue(what: str) -> tuple[dict[str, Any], Callable[[Any, torch.dtype], None]]:
    """Return the cases by name, and the function that runs one."""
    if what == "layers":
        from cases import CASES

        return CASES, try_layer
    if what == "metrics":
        from metrics.metric_cases import CASES as METRICS

        return METRICS, try_metric
    chained = [fn.chain(transform, fn.SGD(0.1)) for transform in TRANSFORMS]
    all_of_them = [opt for opt in (*OPTIMIZERS, *MATRICES, *chained) if not isinstance(opt, READING)]
    return {repr(opt): opt for opt in all_of_them}, partial(try_optimizer, forms=FORMS if what == "forms" else FORMS[:2])


def fault(error: BaseException) -> str:
    """Return the root cause of an error, without errors raised while explaining it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def main(what: str, dtype: str, *names: str) -> None:
    """Run the cases, and print the errors."""
    backend_registration._setup_privateuseone_for_python_backend()
    cases, attempt = catalogue(what)
    faults = {}
    for name in names or cases:
        try:
            attempt(cases[name], getattr(torch, dtype))
        except Exception as error:
            faults[name] = fault(error)
    print(json.dumps({"tried": len(names or cases), "faults": faults}))


if __name__ == "__main__":
    main(*sys.argv[1:])
