"""Eight threads that use one cache, params and state at once compute what one thread does, bit for bit."""

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from cases import CASES, Case

import funcnet as fn
from funcnet import random, tree
from funcnet.testing.comparison import everything, named, noise_like, prepared, run, same_bits

THREADS = 8
RECURRENT = [name for name, case in CASES.items() if type(case.layer).__name__ in ("LSTM", "GRU", "RNN")]
NET = fn.serial(fn.Linear(6, 16), fn.BatchNorm1d(16), fn.GELU(), fn.Dropout(0.2), fn.Linear(16, 3))
X, LABELS = random.normal(1, (24, 6)), torch.arange(24) % 3
OPTIMIZERS = [
    *[fn.SGD(0.1, momentum=0.9), fn.Adam(1e-2, amsgrad=True), fn.AdamW(fn.LinearSchedule(1e-2, 1e-3, 10))],
    fn.chain(fn.ClipByGlobalNorm(1.0), fn.Adam(1e-2)),
]


@pytest.fixture(autouse=True)
def _in_turns() -> Iterator[None]:
    """Make Python switch threads after 10 µs instead of 5 ms, within nearly every call."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(THREADS) as threads:
        yield threads


def at_once(pool: ThreadPoolExecutor, work: Callable[[int], Any]) -> list[Any]:
    """Call ``work`` in all threads at once, with the number of the thread."""
    gate = threading.Barrier(THREADS)

    def begun(i: int) -> Any:
        gate.wait()
        return work(i)

    return [*pool.map(begun, range(THREADS))]


def alike(one: Any, other: Any) -> bool:
    """Return whether two trees agree bit for bit."""
    pairs = zip(*map(tree.leaves, (one, other)), strict=True)
    return tree.structure(one) == tree.structure(other) and all(same_bits(*pair) for pair in pairs)


def tensors(values: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree.leaves(values) if isinstance(leaf, torch.Tensor)]


def random_gradients(params: Any, seed: int) -> Any:
    return tree.map(lambda p: random.normal(seed, p.shape) if p.is_floating_point() else None, params)


def of_threads(pool: ThreadPoolExecutor, case: Case, dtype: torch.dtype) -> bool:
    """Return whether threads with one cache compute what one thread does, and leave the cache unchanged."""
    layer = case.layer
    params, x = prepared(layer, case.x, case.params, 0, dtype)
    y, cache = run(layer, params, x, 0)
    gy, before = noise_like(y, random.key(1)), [leaf.clone() for leaf in tensors(cache)]
    want = everything(layer, params, x, gy, 0)
    work = [lambda: everything(layer, params, x, gy, 0), lambda: named(layer.vjp(params, cache, gy))]
    results = at_once(pool, lambda i: [work[(i + j) % 2]() for j in range(4)])
    agree = all(alike(got, {key: want[key] for key in got}) for row in results for got in row)
    return agree and alike(tensors(cache), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("every", [8, pytest.param(1, marks=pytest.mark.long)])
def test_threads_share_a_layer_and_its_cache(pool: ThreadPoolExecutor, every: int, dtype: torch.dtype) -> None:
    """Half of the calls are ``vjp`` on one cache, the others every verb from the beginning."""
    names = dict.fromkeys([*[*CASES][::every], *RECURRENT])
    assert [name for name in names if not of_threads(pool, CASES[name], dtype)] == []


@pytest.mark.parametrize("layer", [fn.LSTM(16, 32), fn.GRU(16, 32), fn.MultiHeadAttention(16, 4)], ids=repr)
def test_threads_share_a_large_cache(pool: ThreadPoolExecutor, layer: fn.Layer) -> None:
    """At this size kernels run in parallel, since each lets other threads continue."""
    case = Case(layer, random.normal(2, (16, 24, 16)), layer.init(0))
    assert of_threads(pool, case, torch.float32)


@pytest.mark.parametrize("opt", OPTIMIZERS, ids=repr)
def test_threads_share_an_optimizer_and_its_state(pool: ThreadPoolExecutor, opt: fn.Optimizer) -> None:
    """Each takes twenty steps from one state; if donated, from its own copy."""
    params = NET.init(0)
    state, grads = opt.init(params), [random_gradients(params, i) for i in range(20)]

    def trained(opt: fn.Optimizer, params: Any, state: Any) -> Any:
        for g in grads:
            params, state = opt.update(g, state, params)
        return params, state

    want = trained(opt, params, state)
    assert all(alike(got, want) for got in at_once(pool, lambda i: trained(opt, params, state)))
    donated = fn.donate(opt)
    own = [tree.map(torch.clone, (params, state)) for _ in range(THREADS)]
    assert all(alike(got, want) for got in at_once(pool, lambda i: trained(donated, *own[i])))


@pytest.mark.compiled
def test_threads_share_compiled_steps(pool: ThreadPoolExecutor) -> None:
    """Two kinds of calls alternate from the first call on; each thread gets the bits of warm calls in one thread."""
    step = fn.train_step(NET, fn.CrossEntropy(), fn.Adam(1e-2))
    fast, params = fn.compile(step), NET.init(0)
    state = step.opt.init(params)

    def trained(i: int) -> list[Any]:
        return [fast(params, state, X[:n], LABELS[:n], random.key(n)) for n in (24, 7, 24, 7)[i % 2 :]]

    first = at_once(pool, trained)
    want = [trained(0), trained(1)]
    assert all(alike(got, want[i % 2]) for i, got in enumerate(first))
    assert all(alike(got, want[i % 2]) for i, got in enumerate(at_once(pool, trained)))


def test_fit_in_threads(pool: ThreadPoolExecutor) -> None:
    """Each thread has its key, and all share one optimizer: results match a single run."""

    def fitted(i: int) -> Any:
        data = (X, LABELS)
        done = fn.fit(NET, fn.CrossEntropy(), fn.Adam(1e-2), data, epochs=3, batch_size=5, key=i, progress=False)
        return done.params, done.state, torch.tensor(done.history["loss"])

    want = [fitted(i) for i in range(THREADS)]
    assert all(alike(*pair) for pair in zip(at_once(pool, fitted), want, strict=True))
