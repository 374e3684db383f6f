"""Compiled functions: Dynamo is called only for the first call of a kind, and the results equal the function's."""

import copy
import inspect
import pickle

import pytest
import torch

import funcnet as fn
from funcnet.compilation import inductor, options
from funcnet.compilation.programs import Program, Traced

pytestmark = pytest.mark.compiled

NET = fn.serial(fn.Linear(2, 5, bias=False), fn.BatchNorm1d(5), fn.Tanh(), fn.Linear(5, 2))
LOSS = fn.MSE()
X, T = fn.random.uniform(1, (6, 2)), fn.random.uniform(2, (6, 2))


@pytest.fixture
def graphs(monkeypatch):
    """Return a list to which every graph that is compiled is added."""
    found, kernel_of = [], inductor.kernel_of
    monkeypatch.setattr(inductor, "kernel_of", lambda graph, examples: found.append(graph) or kernel_of(graph, examples))
    return found


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
def test_later_steps_go_straight_to_the_kernels(opt, graphs):
    """There is one graph; all steps, including statistics and counters, equal the eager steps."""
    step = fn.train_step(NET, LOSS, opt)
    fast = fn.compile(step)
    torch.testing.assert_close(trained(fast, opt), trained(step, opt), rtol=1e-4, atol=1e-5)
    assert len(graphs) == 1
    assert type(fast._last) is Program


def test_params_that_were_given_up_come_back_as_the_trees_they_were():
    """Unless there are running statistics, which are new, donated params are the same tree object, as in eager mode."""
    net, opt = fn.serial(fn.Linear(2, 5), fn.Linear(5, 2)), fn.donate(fn.SGD(0.1, momentum=0.9))
    fast, params = fn.compile(fn.train_step(net, LOSS, opt)), net.init(0)
    first = fast(params, opt.init(params), X, T)
    again = fast(*first[:2], X, T)
    assert again[0] is first[0]
    assert again[1] is first[1]


def test_the_calls_of_a_long_graph_are_compiled_apart_from_its_kernels(monkeypatch):
    """The results equal the eager step's; a graph with one node fewer than the limit stays in one part."""
    seen, compiled = [], torch._inductor.compile
    monkeypatch.setattr(
        torch._inductor,
        "compile",
        lambda graph, xs, options: seen.append((graph, options)) or compiled(graph, xs, options=options),
    )
    opt = fn.SGD(0.1, momentum=0.9)
    step = fn.train_step(NET, LOSS, opt)
    for i in range(2):
        torch.testing.assert_close(trained(fn.compile(step), opt), trained(step, opt), rtol=1e-4, atol=1e-5)
        assert seen[i][1].get("cpp_wrapper_build_separate", False) is (i == 1)
        monkeypatch.setattr(options.CALLS, "value", len(seen[0][0].graph.nodes))
    monkeypatch.setattr(options.CALLS, "value", len(seen[0][0].graph.nodes) + 1)
    fn.compile(step)(NET.init(0), opt.init(NET.init(0)), X, T)
    assert "cpp_wrapper_build_separate" not in seen[2][1]


def test_small_graphs_compare_sizes_once(monkeypatch):
    """Graphs with large tensors or with custom operators compare them in compiled code too."""
    seen, compiled = [], torch._inductor.compile
    monkeypatch.setattr(
        torch._inductor, "compile", lambda graph, xs, options: seen.append(options) or compiled(graph, xs, options=options)
    )
    for x in (torch.ones(3, 4), torch.ones(3000, 4)):
        fn.compile(fn.Tanh())({}, x)
    lstm = fn.LSTM(4, 4)
    fn.compile(lstm)(lstm.init(0), torch.ones(3, 2, 4))
    assert [one.get("size_asserts", True) for one in seen] == [False, True, True]


@pytest.mark.usefixtures("without_kernels")
def test_each_kind_of_call_is_compiled_once(graphs):
    """A different batch size, dtype, memory format or library is a different kind; the first program is kept."""
    step, opt = fn.train_step(NET, LOSS, fn.SGD(0.1)), fn.SGD(0.1)
    fast = fn.compile(step)
    turned = X.t().contiguous().t()
    for x, t in [(X, T), (X[:4], T[:4]), (X.double(), T.double()), (turned, T), (X, T), (turned, T)]:
        torch.testing.assert_close(trained(fast, opt, 2, x, t), trained(step, opt, 2, x, t), rtol=1e-4, atol=1e-5)
    assert len(graphs) == 4
    with fn.kernels.matmul_library("onednn"):
        trained(fast, opt, 2)
    assert len(graphs) == 5


@pytest.mark.usefixtures("without_kernels")
def test_what_one_mode_compiled_serves_the_other():
    """Inference mode and plain tensors are tried in either order."""
    step, opt = fn.train_step(NET, LOSS, fn.SGD(0.1)), fn.SGD(0.1)
    want = trained(step, opt)
    for modes in [(torch.no_grad, torch.inference_mode), (torch.inference_mode, torch.no_grad)]:
        fast = fn.compile(step)
        for mode in modes:
            with mode():
                torch.testing.assert_close(trained(fast, opt), want, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("without_kernels")
def test_arguments_that_do_not_fit_are_refused_after_many_that_did():
    """The error is the layer's, as in eager mode, and the compiled function still works afterwards."""
    step, opt = fn.train_step(NET, LOSS, fn.SGD(0.1)), fn.SGD(0.1)
    fast = fn.compile(step)
    params, state, _ = trained(fast, opt)
    with pytest.raises(ValueError, match="serial: params must be a tuple of 4"):
        fast(params[:3], state, X, T)
    with pytest.raises(ValueError, match="the last axis of x must be in_features=2"):
        fast(params, state, X[:, :1], T)
    torch.testing.assert_close(fast(params, state, X, T), step(params, state, X, T), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("without_kernels")
def test_one_tensor_in_two_places_is_left_to_dynamo(graphs):
    """Its positions cannot be distinguished, so Dynamo handles each call; the results are correct."""
    step = fn.train_step(NET, LOSS, fn.SGD(0.1))
    fast, params = fn.compile(step), NET.init(0)
    state = step.opt.init(params)
    for _ in range(2):
        torch.testing.assert_close(fast(params, state, X, X), step(params, state, X, X), rtol=1e-4, atol=1e-5)
    assert len(graphs) == 1
    assert type(fast._last) is Traced


@pytest.mark.usefixtures("without_kernels")
def test_a_plain_function_may_read_more_than_its_arguments():
    """Dynamo detects changes of values that the function reads, even more than its limit for one function."""
    scale = [1.0]
    fast = fn.compile(lambda x: x * scale[0])
    for scale[0] in range(12):
        assert torch.equal(fast(X), scale[0] * X)


@pytest.mark.usefixtures("without_kernels")
def test_arguments_by_name_are_those_by_place(graphs):
    """A step can be called either way, with one program; unknown names raise the step's own error."""
    step, params = fn.value_and_grads(NET, LOSS), NET.init(0)
    fast = fn.compile(step)
    for got in (fast(params, x=X, target=T), fast(params, X, target=T), fast(params, X, T), fast(target=T, x=X, params=params)):
        torch.testing.assert_close(got, step(params, X, T))
    assert len(graphs) == 1
    with pytest.raises(TypeError, match=r"ValueAndGrads.__call__.. got an unexpected keyword argument 'y'"):
        fast(params, X, y=T)


def tanh(params, x):
    """Compute tanh as a plain function, which is not a value of the package."""
    return TANH(params, x)


TANH, SCALES = fn.Tanh(), torch.logspace(-37, 2, 1000)


@pytest.mark.parametrize("function", [TANH, tanh], ids=["layer", "function"])
def test_a_compiled_tanh_has_every_digit_but_the_last(function):
    """This includes numbers of any size, at the boundary of its two formulas, and infinity; float64 uses torch's kernel."""
    x = torch.cat([SCALES, -SCALES, torch.linspace(-1, 1, 1001), torch.tensor([0.0, float("inf"), -float("inf"), float("nan")])])
    fast = fn.compile(function)
    for _ in range(2):
        torch.testing.assert_close(fast({}, x).double(), torch.tanh(x.double()), rtol=1.4e-7, atol=1e-44, equal_nan=True)
    torch.testing.assert_close(fast({}, x.double()), torch.tanh(x.double()), rtol=1e-15, atol=0, equal_nan=True)


@pytest.fixture
def two_threads():
    """Make torch use two threads during the test."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_a_small_step_has_one_thread_and_a_large_one_all(two_threads):
    """The small step returns the bits of a process with one thread; the large one is correct too."""
    step, opt = fn.train_step(NET, LOSS, fn.SGD(0.1)), fn.SGD(0.1)
    fast = fn.compile(step)
    got = trained(fast, opt)
    many, target = fn.random.uniform(1, (9000, 2)), fn.random.uniform(2, (9000, 2))
    torch.testing.assert_close(trained(fast, opt, 2, many, target), trained(step, opt, 2, many, target), rtol=1e-4, atol=1e-5)
    torch.set_num_threads(1)
    assert fn.tree.equal(got, trained(fn.compile(step), opt))


@pytest.mark.usefixtures("without_kernels")
def test_no_gradient_is_recorded_and_the_function_shows_by_its_name():
    """The results do not require grad even if params do."""
    step = fn.value_and_grads(fn.Linear(2, 2), LOSS)
    params = fn.tree.map(lambda leaf: leaf.requires_grad_(), fn.Linear(2, 2).init(0))
    fast = fn.compile(step)
    assert not any(leaf.requires_grad for _ in range(2) for leaf in fn.tree.leaves(fast(params, X, T)[:2]))
    assert repr(fast) == f"compile({step!r})"


def test_a_compiled_function_shows_what_it_compiles():
    """It has the function's signature, docstring and name; its copy is itself."""
    fast, step = fn.compile(tanh), fn.train_step(NET, LOSS, fn.SGD(0.1))
    assert (fast.__wrapped__, fast.__name__, fast.__doc__) == (tanh, "tanh", tanh.__doc__)
    assert inspect.signature(fast) == inspect.signature(tanh)
    assert inspect.signature(fn.compile(step)) == inspect.signature(step)
    assert copy.deepcopy(fast) is fast


@pytest.mark.usefixtures("without_kernels")
def test_a_compiled_step_pickles_without_its_programs():
    """It compiles again where it is loaded, and returns the same numbers."""
    step, params = fn.value_and_grads(fn.Linear(2, 2), LOSS), fn.Linear(2, 2).init(0)
    fast = fn.compile(step)
    want = fast(params, X, T)
    loaded = pickle.loads(pickle.dumps(fast))
    assert loaded.__wrapped__ == step
    assert loaded._last is None
    torch.testing.assert_close(loaded(params, X, T), want)


def test_a_function_that_does_not_pickle_is_refused():
    """A lambda has no name."""
    with pytest.raises(pickle.PicklingError, match=r"compile: to pickle, step must pickle, like a train step .*, got <function"):
        pickle.dumps(fn.compile(lambda x: x))


def test_a_compiled_function_within_a_transform_or_another_is_the_function():
    """It can be mapped with vmap, or called in another compiled function."""
    fast, params = fn.compile(TANH), {}
    assert torch.equal(torch.func.vmap(lambda x: fast(params, x))(X), torch.tanh(X))
    torch.testing.assert_close(fn.compile(lambda x: 2 * fast({}, x))(X), 2 * torch.tanh(X))


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.usefixtures("without_kernels")
def test_a_sparse_tensor_that_eager_mode_takes_is_refused(warm):
    """The error says so, instead of an error of the compiler, and the step still works afterwards."""
    step, params = fn.value_and_grads(fn.Linear(2, 2), LOSS), fn.Linear(2, 2).init(0)
    fast = fn.compile(step)
    if warm:
        fast(params, X, T)
    with pytest.raises(ValueError, match="compile: compiled code takes dense tensors only, got a tensor of layout"):
        fast(params, X.to_sparse(), T)
    torch.testing.assert_close(fast(params, X, T), step(params, X, T))


@pytest.mark.filterwarnings("ignore:.*(nested|Sparse CSR).*")
@pytest.mark.parametrize("make", [X.to_sparse_csr, lambda: torch.nested.nested_tensor([*X])], ids=["sparse", "nested"])
@pytest.mark.usefixtures("without_kernels")
def test_a_tensor_without_strides_is_refused_by_a_warm_step(make):
    """The error is the same as in eager mode, and the step still works afterwards."""
    step, params = fn.value_and_grads(fn.Linear(2, 2), LOSS), fn.Linear(2, 2).init(0)
    fast = fn.compile(step)
    want = fast(params, X, T)
    with pytest.raises(ValueError, match=r"MSE\(\): y and target must be dense tensors.*, got a .*(sparse_csr|nested)"):
        fast(params, X, make())
    torch.testing.assert_close(fast(params, X, T), want)
