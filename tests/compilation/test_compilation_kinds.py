"""Kinds of calls: each is compiled once, found by key, limited in number, and released."""

import gc
import weakref

import pytest
import torch

import funcnet as fn
from funcnet.compilation import compiled, inductor
from funcnet.compilation.kinds import Kind, key_of
from funcnet.kernels import tracing

pytestmark = pytest.mark.compiled

NET = fn.serial(fn.Linear(2, 3), fn.Dropout(0.5), fn.Linear(3, 2))
STEP = fn.train_step(NET, fn.MSE(), fn.SGD(0.1, momentum=0.9))
PARAMS = NET.init(0)
STATE = STEP.opt.init(PARAMS)
X, T = fn.random.uniform(1, (20, 2)), fn.random.uniform(2, (20, 2))


@pytest.fixture
def graphs(monkeypatch):
    """Run graphs as traced by Dynamo, without Inductor; return the list to which each is added."""
    found = []
    monkeypatch.setattr(inductor, "kernel_of", lambda graph, examples: found.append(graph) or graph)
    return found


def check_close(got, want):
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)


def test_twenty_batch_sizes_and_twenty_seeds(graphs):
    """Each batch size has one program, all seeds share it, and a second round compiles nothing."""
    fast = fn.compile(STEP)
    for _ in range(2):
        for n in range(1, 21):
            check_close(fast(PARAMS, STATE, X[:n], T[:n], n), STEP(PARAMS, STATE, X[:n], T[:n], n))
    for seed in (*range(20), -1, 1 << 70):
        check_close(fast(PARAMS, STATE, X, T, seed), STEP(PARAMS, STATE, X, T, seed))
        check_close(fast(PARAMS, STATE, X, T, rng=seed), STEP(PARAMS, STATE, X, T, fn.key(seed)))
    assert len(graphs) == fast.programs == 20


def test_batch_sizes_and_seeds_compiled_by_inductor():
    """Three sizes and twenty seeds are tried; the test of twenty sizes shows that there may be more than Dynamo's eight."""
    net = fn.serial(fn.Dropout(0.5), fn.Tanh())
    fast = fn.compile(net)
    for n in (1, 4, 10):
        check_close(fast(({}, {}), X[:n], n), net(({}, {}), X[:n], n))
    for seed in range(20):
        check_close(fast(({}, {}), X[:4], seed), net(({}, {}), X[:4], seed))


@pytest.mark.parametrize("named", [False, True])
def test_a_plain_function_takes_as_many_batch_sizes(graphs, named):
    """The same holds for numbers, positional or named; a second round compiles nothing."""
    step = lambda x, scale=1.0: scale * NET(PARAMS, x, 3)
    fast = fn.compile(step)
    for _ in range(2):
        for n in range(1, 13):
            arguments, names = ((), {"x": X[:n], "scale": float(n)}) if named else ((X[:n], float(n)), {})
            check_close(fast(*arguments, **names), step(*arguments, **names))
    assert len(graphs) == 12


def test_scanned_steps_take_any_seed(graphs):
    """The seed becomes a key before the steps are traced."""
    fast = fn.scan_steps(STEP, 2)
    xs, ts = X.reshape(2, 10, 2), T.reshape(2, 10, 2)
    for seed in range(10):
        params, state = PARAMS, STATE
        for i in range(2):
            params, state, _ = STEP(params, state, xs[i], ts[i], fn.fold_in(seed, i))
        check_close(fast(PARAMS, STATE, xs, ts, seed)[:2], (params, state))
    assert len(graphs) == 1


@pytest.mark.parametrize("step", [fn.Tanh(), lambda params, x: torch.tanh(x)], ids=["layer", "function"])
def test_programs_are_bounded_and_released(graphs, monkeypatch, step):
    """The least recently used one is dropped, with all that Dynamo created; the module of traced functions does not grow."""
    assert compiled.KEPT == 64
    monkeypatch.setattr(compiled, "KEPT", 3)
    fast, refs = fn.compile(step), []
    before = len(vars(inductor))
    for n in (1, 2, 3, 1, 4, 5):
        fast({}, X[:n])
        refs.append(weakref.ref(fast._last))
    assert len(fast._kept) == 3
    graphs_left = [weakref.ref(graph) for graph in graphs]
    graphs.clear()
    gc.collect()
    assert [ref() is not None for ref in refs] == [True, False, False, True, True, True]
    assert [ref() is not None for ref in graphs_left] == [True, False, False, True, True]
    fast({}, X[:1])
    assert graphs == []
    del fast
    gc.collect()
    assert not any(ref() for ref in (*refs, *graphs_left))
    assert len(vars(inductor)) == before


DIFFERENT = {
    "True and 1": (True, 1),
    "1 and 1.0": (1, 1.0),
    "0.0 and -0.0": (0.0, -0.0),
    "a word and None": ("a", None),
    "shapes": (X, X[:3]),
    "strides": (X, X.t().contiguous().t()),
    "dtypes": (X, X.double()),
    "devices": (X, X.to("meta")),
    "a tensor and a number": (X, 1),
    "tuple and list": ((X,), [X]),
    "names": ({"a": X}, {"b": X}),
    "order of names": ({"a": X, "b": 1}, {"b": 1, "a": X}),
    "one tensor twice": ((X, X), (X, X + 1)),
    "lengths": ((X,), (X, None)),
}


@pytest.mark.parametrize("pair", DIFFERENT.values(), ids=DIFFERENT)
@pytest.mark.parametrize("torchs_guard", [True, False])
def test_what_differs_is_of_another_kind(pair, torchs_guard, monkeypatch):
    """Keys differ, and so does the check of the next call, with or without torch's guard."""
    if not torchs_guard:
        monkeypatch.setattr(tracing, "TensorGuards", None)
    one, other = (pair[0], T), (pair[1], T)
    assert key_of(one) == key_of(one)
    assert key_of(one) != key_of(other)
    assert Kind(one).leaves(one) is not None
    assert Kind(other).leaves(one) is None
    assert Kind((1, T)).leaves((1, T)) == [1, T]


def test_nan_is_of_the_kind_of_nan():
    """NaN is not equal to itself."""
    assert key_of(float("nan")) == key_of(float("nan"))


def test_a_number_that_counts_by_its_sign_is_a_constant(graphs):
    """0.0 and -0.0 are equal, but 1 / x is not."""
    fast = fn.compile(lambda x, scale: torch.copysign(x, torch.tensor(scale)))
    assert torch.equal(fast(X, 0.0), X)
    assert torch.equal(fast(X, -0.0), -X)
