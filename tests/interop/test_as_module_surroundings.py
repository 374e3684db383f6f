"""as_module with torch.compile, autocast, and several processes with DistributedDataParallel."""

import multiprocessing

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

import funcnet as fn
from funcnet import tree
from funcnet.interop.torch_nn import as_module, lift

X = fn.random.normal(0, (8, 3))
NET = fn.serial(fn.Linear(3, 5), fn.BatchNorm1d(5), fn.Tanh(), fn.Dropout(0.5), fn.Linear(5, 2))
PARAMS = NET.init(0)


def step(call, module, x, seed):
    """Return y, and the gradients of x and of the parameters, for a seed."""
    torch.manual_seed(seed)
    x = x.clone().requires_grad_()
    y = call(x)
    return y.detach(), *torch.autograd.grad(y.square().sum(), [x, *module.parameters()])


# torch.compile


@pytest.fixture
def nothing_compiled():
    """Discard compiled code: all modules share the code of ``forward``, which Dynamo compiles at most eight times."""
    torch.compiler.reset()


@pytest.mark.compiled
@pytest.mark.usefixtures("nothing_compiled")
@pytest.mark.parametrize("training", [True, False])
def test_compiled_as_one_graph(training):
    """Outputs, gradients and updated statistics equal those of eager mode; a seed repeats the noise."""
    eager, module = as_module(NET, PARAMS).train(training), as_module(NET, PARAMS).train(training)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    expected, found = step(eager, eager, X, 1), step(compiled, module, X, 1)
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in zip(found, expected, strict=True))
    assert tree.allclose(module.params(), eager.params(), rtol=1e-5, atol=1e-6)
    assert torch.equal(step(compiled, module, X, 1)[1], found[1])
    assert torch.equal(step(compiled, module, X, 2)[1], found[1]) is not training
    with torch.no_grad():
        assert not compiled(X).requires_grad


@pytest.mark.compiled
@pytest.mark.usefixtures("nothing_compiled")
def test_compiled_for_sizes_that_change():
    """With ``dynamic=True``, floats such as a dropout probability are symbols too."""
    module = as_module(NET, PARAMS)
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend="aot_eager")
    for rows in (8, 5):
        found, expected = step(compiled, module, X[:rows], 1), step(module, module, X[:rows], 1)
        assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in zip(found, expected, strict=True))


@pytest.mark.compiled
@pytest.mark.usefixtures("nothing_compiled")
def test_a_lifted_module_within_is_compiled():
    """Gradients of all parameters, updated statistics and noise agree, under autocast too."""
    theirs, theirs_params = lift(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.3)), X)
    net = fn.serial(theirs, fn.Tanh(), fn.Linear(4, 2))
    params = (theirs_params, {}, fn.Linear(4, 2).init(0))
    eager, module = as_module(net, params), as_module(net, params)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    expected, found = step(eager, eager, X, 1), step(compiled, module, X, 1)
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in zip(found, expected, strict=True))
    assert tree.allclose(module.params(), eager.params(), rtol=1e-5, atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        assert step(compiled, module, X, 1)[0].dtype is torch.bfloat16


@pytest.mark.compiled
@pytest.mark.usefixtures("nothing_compiled")
def test_compiled_with_inductor():
    """The net has several inputs and outputs, a surrogate with its rule, and an integer input."""
    body = fn.serial(fn.parallel(fn.Linear(3, 4), fn.Embedding(5, 4)), fn.Add(), fn.reverse_gradient(2.0))
    net = fn.serial(body, fn.branch(fn.Linear(4, 2), fn.Tanh()))
    module, labels = as_module(net, net.init(0)), torch.arange(8) % 5
    compiled, found = torch.compile(module, fullgraph=True), []
    for call in (module, compiled):
        x = X.clone().requires_grad_()
        one, other = call(x, labels)
        found.append(torch.autograd.grad(one.sum() + other.square().sum(), [x, *module.parameters()]))
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(*found, strict=True))


@pytest.mark.compiled
@pytest.mark.usefixtures("nothing_compiled")
def test_dynamo_refuses_layouts_to_others_as_before():
    """Information given to Dynamo while it traces a VJP does not persist."""
    module = as_module(fn.Linear(3, 2), fn.Linear(3, 2).init(0))
    refused = "_autograd_backward_strict_mode_banned_ops"
    torch.compile(lambda x: x + 1, backend="eager")(X)
    before = [*getattr(torch._dynamo.config, refused)]
    torch.compile(module, fullgraph=True, backend="aot_eager")(X).sum().backward()
    assert getattr(torch._dynamo.config, refused) == before


@pytest.mark.compiled
@pytest.mark.usefixtures("nothing_compiled")
def test_compiled_code_is_of_one_net():
    """Nets that differ only by a number compile separately, and so does autocast."""
    for slope in (0.1, 0.5):
        module = as_module(fn.LeakyReLU(slope), {})
        compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
        assert torch.equal(compiled(X), module(X))
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(compiled(X), module(X))


@pytest.mark.compiled
@pytest.mark.usefixtures("nothing_compiled")
def test_exported_and_then_as_before():
    """``torch.export`` traces it, and replaces the parameters temporarily."""
    module = as_module(NET, PARAMS).eval()
    y = module(X)
    exported = torch.export.export(module, (X,))
    assert torch.allclose(exported.module()(X), y)
    assert torch.equal(module(X), y)


# autocast


def twin():
    """Return torch's modules with the parameters of a net, and the net's module."""
    net = fn.serial(fn.Linear(3, 5), fn.Tanh(), fn.Linear(5, 2))
    module, theirs = as_module(net, net.init(0)), nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
    theirs.load_state_dict(module.state_dict())
    return module, theirs


def test_autocast_computes_in_its_dtype():
    """As with torch's modules, y has autocast's dtype, and gradients have those of parameters and x."""
    found = []
    for module in twin():
        x = X.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            y = module(x)
        y.float().square().sum().backward()
        found.append([y, x.grad, *[p.grad for p in module.parameters()]])
    assert [one.dtype for one in found[0]] == [torch.bfloat16] + [torch.float32] * 5
    assert all(torch.allclose(a, b, rtol=2e-2, atol=2e-2) for a, b in zip(*found, strict=True))


def test_a_backward_pass_within_autocast_is_the_same():
    """Gradients are computed in the dtypes of the forward pass, wherever ``backward`` is called."""
    module, _ = twin()
    found = []
    for enabled in (False, True):
        x = X.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            y = module(x)
            if enabled:
                found.append(torch.autograd.grad(y.sum(), x)[0])
        if not enabled:
            found.append(torch.autograd.grad(y.sum(), x)[0])
    assert torch.equal(*found)


def test_autocast_leaves_float64_and_statistics():
    """float64 does not change, and running statistics stay in float32."""
    module = as_module(NET, PARAMS)
    with torch.autocast("cpu", torch.bfloat16):
        assert module(X).dtype is torch.bfloat16
        assert module.get_buffer("1.running_var").dtype is torch.float32
        assert module.double()(X.double()).dtype is torch.float64


# several processes


def worker(rank, store, results):
    """Take two steps of data-parallel training on half of the rows."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    net = fn.serial(fn.Linear(3, 5), fn.BatchNorm1d(5), fn.Linear(5, 2))
    module = as_module(net, net.init(rank))  # all ranks get the parameters of rank 0
    parallel = DistributedDataParallel(module)
    opt = torch.optim.SGD(parallel.parameters(), lr=0.1)
    for _ in range(2):
        opt.zero_grad()
        parallel(X[4 * rank : 4 * rank + 4]).square().mean().backward()
        opt.step()
    results.put((rank, {name: p.tolist() for name, p in module.state_dict().items()}))
    distributed.destroy_process_group()


def test_data_parallel_training(tmp_path):
    """With two processes, gradients are means over both, and statistics are those of rank 0's rows."""
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    workers = [context.Process(target=worker, args=(rank, tmp_path / "store", results)) for rank in range(2)]
    for one in workers:
        one.start()
    found = dict(results.get(timeout=300) for _ in workers)
    for one in workers:
        one.join()
    net = fn.serial(fn.Linear(3, 5), fn.BatchNorm1d(5), fn.Linear(5, 2))
    params, opt = net.init(0), fn.SGD(lr=0.1)
    state = opt.init(params)
    for _ in range(2):
        halves = []
        for x in X.split(4):
            y, cache = net.apply(params, x)
            halves.append((net.grads(params, cache, 2 * y / y.numel()), net.update_stats(params, cache)))
        grads = tree.scale(tree.add(halves[0][0], halves[1][0]), 0.5)
        params, state = opt.update(grads, state, halves[0][1])
    for name, leaf in tree.names(params).items():
        assert torch.allclose(torch.tensor(found[0][name]), leaf.double().to(torch.tensor(found[0][name]).dtype), atol=1e-5), name
    weights = [name for name in found[0] if name.endswith(("weight", "bias"))]
    assert all(found[0][name] == found[1][name] for name in weights)
