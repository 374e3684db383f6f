"""Run a task with a torch that lacks names: ``python lacking.py TASK NAME...``.

The names are removed while funcnet is imported, and restored for torch's own use. TASK is ``compile``, a file for the results of
the whole catalogue, or ``laws`` and a file, separated by a comma.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from operator import attrgetter
from typing import Any

import torch

LAYERS = ["PReLU", "Softmax", "LSTM", "BatchNorm1d", "repeat", "GELU"]


@contextmanager
def lacking(name: str) -> Iterator[None]:
    """Remove a name from torch. An operator would reappear on access, so it is replaced with one without overloads."""
    path = name.removesuffix(".default")
    owner, _, last = path.rpartition(".")
    place: Any = attrgetter(owner)(torch) if owner else torch
    before = place.__dict__[last] if isinstance(place, type) else getattr(place, last)
    if path.startswith("ops."):
        setattr(place, last, None)
    else:
        delattr(place, last)
    try:
        yield
    finally:
        setattr(place, last, before)


@contextmanager
def lacking_all(names: Sequence[str]) -> Iterator[None]:
    """Remove several names."""
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(lacking(name))
        yield


def all_names() -> dict[str, bool]:
    """Return whether torch has each name, after importing all kernels, including those imported on demand."""
    from funcnet.kernels.choices import CHOICES
    from funcnet.kernels.private_names import FOUND

    assert len(CHOICES)  # imports them
    return FOUND


def results() -> dict[str, Any]:
    """Compute y and the gradients of every layer, some steps of every optimizer, and the FLOPs of a net by layer."""
    from cases import CASES
    from optim.training import leaves, run
    from optimizer_cases import OPTIMIZERS

    import funcnet as fn

    found: dict[str, Any] = {}
    for name, (layer, x, params, *_) in CASES.items():
        y, cache = layer.apply(params, x, 0 if layer.stochastic else None)
        found[name] = y, layer.vjp(params, cache, y)
    for one in OPTIMIZERS:
        for dtype in (torch.float32, torch.float64):
            found[f"{one!r} {dtype}"] = run(one, leaves(0, dtype), 4)
    net = fn.serial(fn.Conv2d(2, 3, 3), fn.ReLU(), fn.Flatten(), fn.Linear(27, 4))
    rows = fn.summary(net, (2, 2, 5, 5)).rows
    found["FLOPs"] = torch.tensor([(row.flops, row.backward_flops) for row in rows])
    return found


def keep_laws() -> None:
    """Check the laws, including ``vmap`` and second derivatives, on layers and optimizers whose kernels are missing."""
    from cases import CASES
    from optim.training import leaves

    import funcnet as fn

    for name in LAYERS:
        layer, x, params, batched, _ = CASES[name]
        fn.testing.check_laws(layer, x, params, batched=batched, compiled=False, dtypes=(torch.float32,))
    for opt in (fn.SGD(lr=0.1, momentum=0.9), fn.AdamW(lr=0.1, amsgrad=True), fn.Adagrad(lr=0.1)):
        fn.testing.check_optimizer(opt, leaves(0), compiled=False)


def compile_steps() -> None:
    """Compare compiled training steps with eager ones: kernels, a loop, dropout, running statistics and Adam.

    Torch's ``scan`` has not been looked up before, so it is missing here.
    """
    import torch._dynamo

    torch._higher_order_ops.scan = None
    import funcnet as fn

    first = [fn.Linear(4, 3, bias=False), fn.BatchNorm1d(3), fn.PReLU(), fn.Dropout(0.5)]
    net = fn.serial(*first, fn.repeat(fn.Linear(3, 3), 3))
    step = fn.train_step(net, fn.CrossEntropy(), opt := fn.AdamW(lr=0.1))
    x, target, rng = fn.random.normal(0, (8, 4)), torch.arange(8) % 3, fn.key(0)
    compiled, want = fn.compile(step), (net.init(0), opt.init(net.init(0)))
    got = want
    for i in range(2):
        want = step(*want, x, target, fn.fold_in(rng, i))[:2]
        got = compiled(*got, x, target, fn.fold_in(rng, i))[:2]
    fn.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def main() -> None:
    """Remove the names, import funcnet, and run the task."""
    work, *names = sys.argv[1:]
    torch.set_num_threads(1)
    with lacking_all(names):
        looked_up = all_names()
    assert sorted(name for name, there in looked_up.items() if not there) == sorted(names)
    for one in work.split(","):
        {"laws": keep_laws, "compile": compile_steps}.get(one, lambda one=one: torch.save(results(), one))()


if __name__ == "__main__":
    main()
