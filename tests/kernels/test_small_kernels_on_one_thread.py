"""Threads: small kernels run on the calling thread, return the bits of one thread, and do not change the number of threads."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import funcnet as fn
from funcnet.kernels import forced, threads
from funcnet.kernels.linear import linear, linear_vjp
from funcnet.kernels.tiles import tile_max_with_indices
from funcnet.plans import Plans

NETS: dict[str, tuple[fn.Layer, tuple[int, int]]] = {
    "tiny": (fn.serial(fn.Linear(20, 60), fn.Tanh(), fn.Linear(60, 3)), (10, 20)),
    "no bias": (fn.serial(fn.Linear(13, 60, bias=False), fn.ReLU(), fn.Linear(60, 3, bias=False)), (7, 13)),
    "batch norm": (fn.serial(fn.Linear(20, 20), fn.BatchNorm1d(20), fn.Tanh(), fn.Linear(20, 3)), (10, 20)),
    "many rows": (fn.serial(fn.Linear(2, 3), fn.Tanh(), fn.Linear(3, 3)), (5000, 2)),
    "a large product before small ones": (fn.serial(fn.Linear(100, 60), fn.Tanh(), fn.Linear(60, 3)), (40, 100)),
    "a large batch norm": (fn.serial(fn.BatchNorm1d(100), fn.Linear(100, 3)), (400, 100)),
}


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Use two threads, and restore the number afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def found(net: fn.Layer, x: Any, opt: fn.Optimizer) -> list[Any]:
    """Return all results of four calls of each method and of a train step; the first calls run checks, the last a plan."""
    params, results = net.init(0), []
    step, state = fn.train_step(net, fn.MSE(), opt), opt.init(params)
    target = torch.ones(len(x), 3)
    for _ in range(4):
        y, cache = net.apply(params, x)
        back = net.vjp(params, cache, y), net.grads(params, cache, y), net.input_grad(params, cache, y)
        results.append((y, cache, back, step(params, state, x, target)))
    return results


def assert_same_bits(left: Any, right: Any) -> None:
    for one, other in zip(fn.tree.leaves(left), fn.tree.leaves(right), strict=True):
        assert one is other is None or (one.dtype is other.dtype and torch.equal(one, other))


@pytest.mark.parametrize("name", NETS)
def test_plans_on_two_threads_give_the_bits_of_the_checks(name: str, two_threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan sets the number of threads once for all kernels; with checks, each small kernel sets it."""
    net, shape = NETS[name]
    x = fn.random.normal(1, shape)
    planned = found(net.replace(), x, fn.Adam(0.01))
    monkeypatch.setattr(Plans, "find", lambda self, arguments: None)
    checked = found(net.replace(), x, fn.Adam(0.01))
    for one in (*planned, *checked):
        assert_same_bits(one, checked[0])


@pytest.mark.parametrize("option", ["one", "all"])
@pytest.mark.parametrize("name", ["threads of small products", "threads of small batch norms"])
def test_the_laws_hold_on_two_threads(name: str, option: str, two_threads: None) -> None:
    """All products count as small, or none."""
    with forced(name, option):
        fn.testing.check_laws(fn.Linear(3, 4), fn.random.normal(1, (5, 3)), compiled=False)
        fn.testing.check_laws(fn.BatchNorm1d(3), fn.random.normal(1, (5, 3)), batched=False, compiled=False)


def test_maxima_have_the_same_bits_on_one_thread_and_on_two(two_threads: None) -> None:
    """Values and indices agree in windows with rows of two, for an x that two threads would share."""
    x, kernel = fn.random.normal(1, (8, 8, 40, 40)), (2, 2)
    with forced("threads of maxima in pairs", "all"):
        several = tile_max_with_indices(x, kernel)
    assert_same_bits(several, tile_max_with_indices(x, kernel))
    assert_same_bits(several, torch.nn.functional.max_pool2d(x, kernel, return_indices=True))


@pytest.mark.parametrize("name", ["tiny", "no bias", "batch norm"])
@pytest.mark.parametrize("opt", [fn.SGD(0.1), fn.SGD(0.1, momentum=0.9), fn.Adam(0.01)])
def test_a_small_net_has_the_same_bits_on_one_thread_and_on_two(name: str, opt: fn.Optimizer, two_threads: None) -> None:
    """This includes the updates of an optimizer."""
    net, shape = NETS[name]
    x = fn.random.normal(1, shape)
    two = found(net.replace(), x, opt)
    torch.set_num_threads(1)
    assert_same_bits(two, found(net.replace(), x, opt))


def test_plans_are_for_one_number_of_threads(two_threads: None) -> None:
    """A plan made for one thread is not used with two, where other kernels can split the work."""
    net, shape = NETS["tiny"]
    net, x = net.replace(), fn.random.normal(1, shape)
    params = net.init(0)
    torch.set_num_threads(1)
    for _ in range(2):
        net.apply(params, x)
    assert net._forward.find((params, x)) is not None
    torch.set_num_threads(2)
    assert net._forward.find((params, x)) is None


def counts() -> tuple[int, int]:
    """Return torch's number of threads and, in builds with MKL, the number set for the calling thread, or 0."""
    mkl = threads.mkl_threads()
    own = mkl(0) if mkl else 0
    if mkl:
        mkl(own)
    return torch.get_num_threads(), own


def failing(*operands: Any) -> None:
    """Raise ``LookupError``."""
    raise LookupError


@pytest.mark.parametrize("wrap", [threads.with_one_mkl_thread, threads.with_one_openmp_thread, threads.with_one_thread])
def test_a_call_restores_the_number_of_threads(wrap: Callable[..., Any], two_threads: None) -> None:
    """The number is restored after an error too."""
    before = counts()
    assert wrap(lambda one, *, two: (one, two))(1, two=2) == (1, 2)
    assert counts() == before
    with pytest.raises(LookupError):
        wrap(failing)()
    assert counts() == before


def test_within_a_call_there_is_one_thread(two_threads: None) -> None:
    """The kernel sees one thread; without a setter in OpenMP it is called directly."""
    inner = threads.with_one_thread(counts)()
    assert inner == (1 if threads.openmp_threads() else 2, 1 if threads.mkl_threads() else 0)


def test_without_setters_a_kernel_is_called_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """It then runs with the threads of the process."""
    monkeypatch.setattr(threads, "mkl_threads", lambda: None)
    monkeypatch.setattr(threads, "openmp_threads", lambda: None)
    assert threads.with_one_thread(failing) is failing


def test_an_unknown_function_is_no_setter() -> None:
    """A build of torch without MKL does not export its function."""
    assert threads._exported("no_such_function", None) is None


def test_the_size_decides(two_threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Products below the threshold use one MKL thread; others, and all with the option ``all``, the threads of the process."""
    seen: list[int] = []
    monkeypatch.setattr("funcnet.kernels.linear._both_on_one_thread", lambda *one: seen.append(1) or (one[0], one[0]))
    monkeypatch.setattr("funcnet.kernels.linear._both", lambda *one: seen.append(2) or (one[0], one[0]))
    for rows in (10, 1000):
        linear_vjp(torch.ones(rows, 16), torch.ones(rows, 16), torch.ones(16, 16), False)
    with forced("threads of small products", "all"):
        linear_vjp(torch.ones(10, 16), torch.ones(10, 16), torch.ones(16, 16), False)
    torch.set_num_threads(1)
    linear_vjp(torch.ones(10, 16), torch.ones(10, 16), torch.ones(16, 16), False)
    assert seen == [1, 2, 2, 2]


def test_a_compiled_program_holds_no_setter(two_threads: None) -> None:
    """Dynamo traces the product itself."""
    f = torch.compile(linear, fullgraph=True, backend="aot_eager")
    x, w = fn.random.normal(1, (10, 20)), fn.random.normal(2, (60, 20))
    torch.testing.assert_close(f(x, w), linear(x, w))
