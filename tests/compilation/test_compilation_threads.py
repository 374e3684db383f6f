"""Threads and fallbacks: simultaneous first calls, state of the process, per-thread flags, and missing private names."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import funcnet as fn
from funcnet.compilation import inductor, options
from funcnet.compilation.programs import Program, Traced
from funcnet.kernels import threads, tracing

pytestmark = pytest.mark.compiled

NET = fn.serial(fn.Linear(2, 3), fn.Tanh(), fn.Linear(3, 2))
STEP = fn.train_step(NET, fn.MSE(), fn.SGD(0.1, momentum=0.9))
PARAMS = NET.init(0)
STATE = STEP.opt.init(PARAMS)
X, T = fn.random.uniform(1, (12, 2)), fn.random.uniform(2, (12, 2))


def plain(params, state, x, t):
    """Take a step as a plain function, which Dynamo guards."""
    return STEP(params, state, x, t)


def at_once(count, work):
    """Call ``work`` with 0 ... count-1, each in a thread, all at the same time; return the results."""
    gate = threading.Barrier(count)
    with ThreadPoolExecutor(count) as pool:
        return [one.result() for one in [pool.submit(lambda i=i: (gate.wait(), work(i))[1]) for i in range(count)]]


def close(got, want):
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("step", [STEP, plain], ids=["step", "function"])
def test_eight_threads_on_a_fresh_step(step, request):
    """They call one kind, or four kinds, at the same time, while others still compile, and again afterwards."""
    if step is plain:  # with Inductor's kernels for the other only, as they take three seconds each
        request.getfixturevalue("without_kernels")
    fast = fn.compile(step)
    sizes = [12, 12, 12, 12, 12, 3, 4, 5]

    def work(i):
        return [fast(PARAMS, STATE, X[: sizes[i]], T[: sizes[i]]) for _ in range(20)]

    for n, results in zip(sizes, at_once(8, work), strict=True):
        for got in results:
            close(got, STEP(PARAMS, STATE, X[:n], T[:n]))
    assert len(fast._kept) == 4
    close(fast(PARAMS, STATE, X, T), STEP(PARAMS, STATE, X, T))


def test_warm_calls_do_not_wait_while_another_thread_compiles():
    """They take no lock, and their results are correct."""
    fast = fn.compile(STEP)
    want = fast(PARAMS, STATE, X, T)
    with inductor.compile_lock(), ThreadPoolExecutor(1) as pool:
        assert fn.tree.equal(pool.submit(fast, PARAMS, STATE, X, T).result(timeout=300), want)


def test_a_call_leaves_the_process_as_it_is(monkeypatch):
    """The number of threads does not change, not even for a thread that watches or starts in the meantime."""
    before, seen, stop = torch.get_num_threads(), set(), threading.Event()
    torch.set_num_threads(2)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(torch, "set_num_threads", lambda count: pytest.fail("a call set the number of threads"))
            fast = fn.compile(STEP)
            fast(PARAMS, STATE, X, T)
            watcher = threading.Thread(target=lambda: [seen.add(torch.get_num_threads()) for _ in iter(stop.is_set, True)])
            watcher.start()
            for _ in range(2000):
                fast(PARAMS, STATE, X, T)
            stop.set()
            watcher.join()
            mkl = threads.mkl_threads() or (lambda count: 2)
            own = mkl(2)
        assert seen == {2}
        assert torch.get_num_threads() == 2
        assert own == mkl(own)
    finally:
        torch.set_num_threads(before)


def nested_contexts(pool):
    """Return the threads that are marked within two contexts and within one, and raise an error."""
    seen = []
    try:
        with tracing.tracing_for_inductor():
            with tracing.tracing_for_inductor():
                seen.append({*tracing._for_inductor})
            seen += [{*tracing._for_inductor}, pool.submit(threading.get_ident).result() in tracing._for_inductor]
            raise KeyError
    except KeyError:
        return seen


def test_flags_nest_and_belong_to_a_thread():
    """An inner context does not end the outer one; another thread sees neither; an error ends both."""
    thread = {threading.get_ident()}
    with ThreadPoolExecutor(1) as pool:
        assert nested_contexts(pool) == [thread, thread, False]
    assert tracing._for_inductor == set()


def test_a_context_alone_changes_no_bits():
    """Formulas for Inductor are used only for tracing, not for eager computations of the thread."""
    want = NET.apply(PARAMS, X)
    with tracing.tracing_for_inductor():
        assert not tracing.is_for_inductor()
        assert fn.tree.equal(NET.apply(PARAMS, X), want)


def test_another_thread_computes_in_eager_mode_meanwhile():
    """While one thread compiles, torch.compiler.is_compiling() is true for all; the others have the bits of eager mode."""
    want, found = STEP(PARAMS, STATE, X, T), []

    def compiling(graph, examples):
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(lambda: (torch.compiler.is_compiling(), tracing.is_eager(), tracing.is_for_inductor()))
            found.append((asked.result(), pool.submit(STEP, PARAMS, STATE, X, T).result(), tracing.is_eager()))
        return graph

    torch.compile(lambda x: NET(PARAMS, x), fullgraph=True, backend=compiling)(X)
    ((asked, got, here),) = found
    assert asked == (True, True, False)
    assert not here
    assert fn.tree.equal(got, want)


def test_a_compiler_other_than_inductor_has_no_formulas_for_it():
    """A function that torch.compile traces after fn.compile has the bits of eager mode."""
    close(fn.compile(NET)(PARAMS, X), NET(PARAMS, X))
    assert torch.equal(torch.compile(NET, fullgraph=True, backend="aot_eager")(PARAMS, X), NET(PARAMS, X))


@pytest.fixture
def bare(request, monkeypatch):
    """Remove torch's private names; names found earlier are looked up again."""
    clear = [options.inductor_options.cache_clear, inductor._backend.cache_clear, inductor.compile_lock.cache_clear]
    for one in clear:
        one()
    if request.param == "TensorGuards":
        monkeypatch.setattr(tracing, "TensorGuards", None)
    elif request.param == "options":
        monkeypatch.setattr(torch._inductor, "list_options", lambda: ["triton.cudagraphs"])
    else:
        monkeypatch.delattr(
            {"compile": "torch._inductor.compile", "lock": "torch._dynamo.convert_frame.compile_lock"}[request.param]
        )
    yield request.param
    for one in clear:
        one()


@pytest.mark.parametrize("bare", ["TensorGuards", "options", "compile"], indirect=True)
def test_without_private_names_of_torch_the_numbers_are_the_same(bare):
    """It is slower: without Inductor's entry point Dynamo handles every call."""
    fast = fn.compile(STEP)
    for n in (12, 5, 12):
        close(fast(PARAMS, STATE, X[:n], T[:n]), STEP(PARAMS, STATE, X[:n], T[:n]))
    assert type(fast._last) is (Traced if bare == "compile" else Program)
    wanted = {"cpp_wrapper", "cpp.threads", "cpp_wrapper_build_separate", "cpp.max_horizontal_fusion_size"}
    assert set(options.inductor_options()) == (set() if bare == "options" else wanted)


@pytest.mark.parametrize("bare", ["lock"], indirect=True)
def test_without_dynamo_s_lock_there_is_ours(bare):
    """It is reentrant, which a first call within a first call requires."""
    assert bare == "lock"
    with inductor.compile_lock(), inductor.compile_lock():
        assert inductor.compile_lock() is inductor._OWN_LOCK
