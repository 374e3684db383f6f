"""Compiled functions: after the first call of a kind Dynamo is not asked again, and the numbers stay those of the function."""

import pytest
import torch

import funcnet as fn
from funcnet.kernels.tracing import tracing_for_inductor

pytestmark = pytest.mark.compiled

NET = fn.serial(fn.Linear(2, 5, bias=False), fn.BatchNorm1d(5), fn.Tanh(), fn.Linear(5, 2))
LOSS = fn.MSE()
X, T = fn.random.uniform(1, (6, 2)), fn.random.uniform(2, (6, 2))


def counted(compiled, monkeypatch):
    """Return a list to which every call that Dynamo makes is added."""
    calls, traced = [], compiled._traced
    monkeypatch.setattr(compiled, "_traced", lambda *arguments, **named: calls.append(1) or traced(*arguments, **named))
    return calls


def trained(step, opt, steps=4, x=X, t=T):
    """Take steps from fresh params; return params, state and the losses."""
    params = fn.tree.cast(NET.init(0), x.dtype)
    state, values = opt.init(params), []
    for _ in range(steps):
        params, state, value = step(params, state, x, t)
        values.append(value.clone())
    return params, state, torch.stack(values)


@pytest.mark.parametrize(
    "opt", [fn.SGD(0.1), fn.donate(fn.SGD(0.1, momentum=0.9)), fn.AdamW(0.1), fn.donate(fn.Adam(0.1, amsgrad=True))], ids=repr
)
def test_later_steps_go_straight_to_the_kernels(opt, monkeypatch):
    """One call by Dynamo; all steps, statistics and counters included, are those of the eager step."""
    step = fn.train_step(NET, LOSS, opt)
    fast = fn.compile(step)
    calls = counted(fast, monkeypatch)
    torch.testing.assert_close(trained(fast, opt), trained(step, opt), rtol=1e-4, atol=1e-5)
    assert len(calls) == 1


def test_params_that_were_given_up_come_back_as_the_trees_they_were():
    """As in eager mode: without running statistics, which are new, params are the very tree that came in."""
    net, opt = fn.serial(fn.Linear(2, 5), fn.Linear(5, 2)), fn.donate(fn.SGD(0.1, momentum=0.9))
    fast, params = fn.compile(fn.train_step(net, LOSS, opt)), net.init(0)
    first = fast(params, opt.init(params), X, T)
    again = fast(*first[:2], X, T)
    assert again[0] is first[0]
    assert again[1] is first[1]


def test_a_call_that_differs_is_dynamo_s_once(monkeypatch):
    """Another batch size, dtype, order in memory, thread count or preferred library, each kind by itself; the first stays."""
    step, opt = fn.train_step(NET, LOSS, fn.SGD(0.1)), fn.SGD(0.1)
    fast = fn.compile(step)
    calls = counted(fast, monkeypatch)
    turned = X.t().contiguous().t()
    for x, t in [(X, T), (X[:4], T[:4]), (X.double(), T.double()), (turned, T), (X, T), (turned, T)]:
        torch.testing.assert_close(trained(fast, opt, 2, x, t), trained(step, opt, 2, x, t), rtol=1e-4, atol=1e-5)
    assert len(calls) == 4
    with fn.kernels.matmul_library("onednn"):
        trained(fast, opt, 2)
    assert len(calls) == 5


def test_each_number_among_the_arguments_is_a_kind(monkeypatch):
    """A seed is a constant of the graph, so another seed has its own; a key is a tensor, and all keys share one."""
    net = fn.serial(fn.Linear(2, 5), fn.Dropout(0.5), fn.Linear(5, 2))
    step = fn.train_step(net, LOSS, fn.SGD(0.1))
    fast, params = fn.compile(step), net.init(0)
    calls, state = counted(fast, monkeypatch), step.opt.init(params)
    for rng in (1, 2, 1, 2, fn.key(1), fn.key(2)):
        torch.testing.assert_close(fast(params, state, X, T, rng), step(params, state, X, T, rng), rtol=1e-4, atol=1e-5)
    assert len(calls) == 3


def test_what_one_mode_compiled_serves_the_other():
    """Inference mode and plain tensors, in either order."""
    step, opt = fn.train_step(NET, LOSS, fn.SGD(0.1)), fn.SGD(0.1)
    want = trained(step, opt)
    for modes in [(torch.no_grad, torch.inference_mode), (torch.inference_mode, torch.no_grad)]:
        fast = fn.compile(step)
        for mode in modes:
            with mode():
                torch.testing.assert_close(trained(fast, opt), want, rtol=1e-4, atol=1e-5)


def test_arguments_that_do_not_fit_are_refused_after_many_that_did():
    """The sentence is the layer's, as in eager mode, and the compiled function goes on to serve."""
    step, opt = fn.train_step(NET, LOSS, fn.SGD(0.1)), fn.SGD(0.1)
    fast = fn.compile(step)
    params, state, _ = trained(fast, opt)
    with pytest.raises(ValueError, match="serial: params must be a tuple of 4"):
        fast(params[:3], state, X, T)
    with pytest.raises(ValueError, match="the last axis of x must be in_features=2"):
        fast(params, state, X[:, :1], T)
    torch.testing.assert_close(fast(params, state, X, T), step(params, state, X, T), rtol=1e-4, atol=1e-5)


def test_one_tensor_in_two_places_is_no_kind_of_its_own(monkeypatch):
    """Such a call cannot be told apart by its tensors, so Dynamo makes it each time; the numbers are right."""
    step = fn.train_step(NET, LOSS, fn.SGD(0.1))
    fast, params = fn.compile(step), NET.init(0)
    calls, state = counted(fast, monkeypatch), step.opt.init(params)
    for _ in range(2):
        torch.testing.assert_close(fast(params, state, X, X), step(params, state, X, X), rtol=1e-4, atol=1e-5)
    assert len(calls) == 2


def test_a_function_of_one_s_own_and_named_arguments_are_dynamo_s(monkeypatch):
    """What such a function reads besides its arguments may change, and Dynamo sees it."""
    scale = [1.0]
    fast = fn.compile(lambda x: x * scale[0])
    assert torch.equal(fast(X), X)
    scale[0] = 2.0
    assert torch.equal(fast(X), 2 * X)
    step, params = fn.value_and_grads(NET, LOSS), NET.init(0)
    named = fn.compile(step)
    calls = counted(named, monkeypatch)
    for _ in range(2):
        torch.testing.assert_close(named(params, x=X, target=T)[0], step(params, X, T)[0])
    assert len(calls) == 2


def tanh(params, x):
    """Tanh as a function of one's own, which is no value of the package."""
    return TANH(params, x)


TANH, SCALES = fn.Tanh(), torch.logspace(-37, 2, 1000)


@pytest.mark.parametrize("function", [TANH, tanh], ids=["layer", "function"])
def test_a_compiled_tanh_has_every_digit_but_the_last(function):
    """Of numbers of any size, at the seam of its two formulas, at the ends of the line; in float64 it is torch's own."""
    x = torch.cat([SCALES, -SCALES, torch.linspace(-1, 1, 1001), torch.tensor([0.0, float("inf"), -float("inf"), float("nan")])])
    fast = fn.compile(function)
    for _ in range(2):
        torch.testing.assert_close(fast({}, x).double(), torch.tanh(x.double()), rtol=1.4e-7, atol=1e-44, equal_nan=True)
    torch.testing.assert_close(fast({}, x.double()), torch.tanh(x.double()), rtol=1e-15, atol=0, equal_nan=True)


@pytest.fixture
def two_threads():
    """Have torch use two threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_a_small_step_has_one_thread_and_a_large_one_all(two_threads, monkeypatch):
    """The count is as before after each call; the numbers are those of the step that was compiled for one thread."""
    step, opt, counts = fn.train_step(NET, LOSS, fn.SGD(0.1)), fn.SGD(0.1), []
    want = trained(step, opt)
    setting = torch.set_num_threads
    fast = fn.compile(step)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "set_num_threads", lambda count: counts.append(count) or setting(count))
        got = trained(fast, opt)
        assert counts == [1, 2] * 4
        many, target = fn.random.uniform(1, (9000, 2)), fn.random.uniform(2, (9000, 2))
        torch.testing.assert_close(trained(fast, opt, 2, many, target), trained(step, opt, 2, many, target), rtol=1e-4, atol=1e-5)
        assert counts == [1, 2] * 4
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    torch.set_num_threads(1)
    alone = trained(fn.compile(step), opt)
    assert fn.tree.equal(got, alone)


def test_what_is_computed_while_another_thread_compiles_has_the_same_bits():
    """Formulas for the compiler are for what it traces alone."""
    net = fn.serial(fn.Linear(2, 5), TANH)
    params = net.init(0)
    want = net.apply(params, X)
    with tracing_for_inductor():
        assert fn.tree.equal(net.apply(params, X), want)


def test_no_gradient_is_recorded_and_the_function_shows_by_its_name():
    """Params that require a gradient give values that do not."""
    step = fn.value_and_grads(fn.Linear(2, 2), LOSS)
    params = fn.tree.map(lambda leaf: leaf.requires_grad_(), fn.Linear(2, 2).init(0))
    fast = fn.compile(step)
    assert not any(leaf.requires_grad for _ in range(2) for leaf in fn.tree.leaves(fast(params, X, T)[:2]))
    assert repr(fast) == f"compile({step!r})"
