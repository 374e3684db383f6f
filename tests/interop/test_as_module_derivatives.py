"""Derivatives through as_module and differentiable: gradients are the net's VJP, and every order and mode works."""

import itertools

import pytest
import torch
from cases import CASES
from torch.autograd import forward_ad
from torch.autograd.graph import save_on_cpu
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from torch.utils.checkpoint import checkpoint

import funcnet as fn
from funcnet import tree
from funcnet.interop.torch_nn import as_module, differentiable

X = fn.random.normal(0, (5, 2)).double()
NET = fn.serial(fn.Linear(2, 4), fn.BatchNorm1d(4), fn.Tanh(), fn.Linear(4, 3))
PARAMS = tree.cast(NET.init(0), torch.float64)


def asking(values):
    """Return a tree whose floating leaves are copies that require gradients."""
    return tree.map(lambda leaf: leaf.clone().requires_grad_(leaf.is_floating_point()), values)


def drawn_like(y):
    """Return a random gradient for y."""
    return tree.map(lambda leaf: fn.random.normal(leaf.dim(), leaf.shape).to(leaf.dtype) if leaf.is_floating_point() else leaf, y)


def by_autograd(module, x, gy, key):
    """Return y and the gradients of parameters and of the leaves of x, for a module with seeded noise."""
    torch.manual_seed(key)
    x = asking(x)
    y = module(x)
    inputs = {**dict(module.named_parameters()), **{f"x.{name}": leaf for name, leaf in tree.names((x,)).items()}}
    inputs = {name: leaf for name, leaf in inputs.items() if leaf.requires_grad}
    pairs = [(leaf, g) for leaf, g in zip(tree.leaves(y), tree.leaves(gy), strict=True) if leaf.requires_grad]
    found = torch.autograd.grad(
        *map(list, [[one for one, _ in pairs], inputs.values(), [g for _, g in pairs]]), allow_unused=True
    )
    return y, dict(zip(inputs, found, strict=True))


def by_vjp(case, gy, key):
    """Return y and the gradients, by name, of the net itself, with the key that a module samples."""
    torch.manual_seed(key)
    rng = torch.randint(-(2**63), 2**63 - 1, ()) if case.layer.stochastic else None
    y, cache = case.layer.apply(case.params, case.x, rng)
    gparams, gx = case.layer.vjp(case.params, cache, gy)
    return (
        y,
        {**tree.names(gparams), **{f"x.{name}": g for name, g in tree.names((gx,)).items()}},
        case.layer.update_stats(case.params, cache),
    )


@pytest.mark.parametrize("part", range(2))
def test_gradients_are_those_of_the_net(part):
    """They agree bit for bit for every layer of the catalogue, as do y and updated statistics."""
    for name, case in itertools.islice(CASES.items(), part, None, 6):
        module = as_module(case.layer, case.params)
        gy = drawn_like(case.layer(case.params, case.x, 0))
        expected_y, expected, moved = by_vjp(case, gy, 7)
        if not expected or not any(leaf.is_floating_point() for leaf in tree.leaves(expected_y)):
            continue  # nothing has a gradient, or y is not differentiable
        y, found = by_autograd(module, case.x, gy, 7)
        assert tree.equal(y, expected_y), name
        assert {path for path, g in found.items() if g is not None} == set(expected), name
        assert all(torch.equal(found[path], g) for path, g in expected.items()), name
        assert tree.equal(module.params(), moved), name


# second derivatives and other modes

SMOOTH = {
    "norm": NET,
    "attention": fn.serial(fn.Unsqueeze(0), fn.MultiHeadAttention(2, 1)),
    "spectral": fn.spectral_norm(fn.Linear(2, 3)),
    "shared": fn.serial(fn.branch(fn.Linear(2, 3), fn.Tanh()), fn.parallel(fn.GELU(), fn.Linear(2, 3)), fn.Mul()),
}


@pytest.mark.parametrize("net", SMOOTH.values(), ids=SMOOTH)
def test_first_and_second_derivatives_agree_with_differences(net):
    """This holds in float64 for x and all parameters, in forward mode too."""
    module = as_module(net, net.init(0)).double().train(mode=net is NET)  # the vectors of spectral_norm would change
    names = [name for name, p in module.named_parameters() if p.requires_grad]

    def call(x, *leaves):
        return functional_call(module, dict(zip(names, leaves, strict=True)), (x,))

    inputs = (asking(X), *[asking(module.get_parameter(name).detach()) for name in names])
    assert torch.autograd.gradcheck(call, inputs, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(call, inputs, check_fwd_over_rev=True)


def test_derivatives_of_derivatives_in_every_order_of_modes():
    """Forward and reverse modes, to the third order, agree with autograd on the same torch.nn net."""
    module = as_module(NET, PARAMS)
    theirs = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.BatchNorm1d(4), torch.nn.Tanh(), torch.nn.Linear(4, 3)).double()
    theirs.load_state_dict(module.state_dict())
    ours, other = [lambda x, one=one: one(x).square().sum() for one in (module.eval(), theirs.eval())]
    expected = torch.autograd.functional.hessian(other, X)
    for way in (
        hessian(ours),
        jacrev(grad(ours)),
        jacfwd(jacfwd(ours)),
        jacrev(jacfwd(ours)),
        lambda x: torch.autograd.functional.hessian(ours, x),
    ):
        assert torch.allclose(way(X), expected)
    third = jacrev(hessian(other))(X)
    assert torch.allclose(jacrev(hessian(ours))(X), third)
    assert torch.allclose(jacfwd(jacrev(grad(ours)))(X), third)


def test_per_example_gradients_by_vmap():
    """They equal those of the net's own function, and a vmap over parameters is an ensemble."""
    module = as_module(NET, PARAMS).eval()
    params = {name: p.detach() for name, p in module.named_parameters()}
    loss = lambda params, x: functional_call(module, params, (x[None],)).square().mean()
    found = vmap(grad(loss), (None, 0))(params, X)
    target = torch.zeros(5, 3, dtype=torch.float64)
    _, expected = fn.per_example_grads(NET.inference(), fn.MSE())(PARAMS, X, target)
    assert all(torch.allclose(found[name], g) for name, g in tree.names(expected).items())
    stacked = {name: torch.stack([p, 2 * p]) for name, p in params.items()}
    several = vmap(lambda params: functional_call(module, params, (X,)))(stacked)
    assert torch.allclose(several[0], module(X))


def test_gradients_of_gradients_are_computed_for_a_penalty():
    """The penalty is the norm of the gradient of x, whose gradient reaches the parameters."""
    module = as_module(NET, PARAMS)
    x = asking(X)
    (gx,) = torch.autograd.grad(module(x).sum(), x, create_graph=True)
    gx.square().sum().backward()
    smooth = lambda w: torch.func.grad(lambda x: NET((({**PARAMS[0], "weight": w}), *PARAMS[1:]), x).sum())(X).square().sum()
    assert torch.allclose(module.get_parameter("0.weight").grad, torch.func.grad(smooth)(PARAMS[0]["weight"]))


def test_surrogates_keep_their_rule():
    """This holds in reverse and in forward mode, although the derivative of the output differs."""
    module = as_module(fn.reverse_gradient(2.0), {})
    x = asking(X)
    assert torch.equal(torch.autograd.grad(module(x).sum(), x)[0], torch.full_like(X, -2.0))
    assert torch.equal(jvp(module, (X,), (X,))[1], -2 * X)
    with forward_ad.dual_level():
        assert torch.equal(forward_ad.unpack_dual(module(forward_ad.make_dual(X, X))).tangent, -2 * X)
    with pytest.raises(ValueError, match="a surrogate has no second derivative in forward mode"):
        jacfwd(jacfwd(module))(X)


def test_vmap_over_training_refuses_to_write_statistics():
    """So does torch's BatchNorm: the buffer has no axis for the examples."""
    module = as_module(NET, PARAMS)
    with pytest.raises(RuntimeError, match="vmap: inplace arithmetic"):
        vmap(module)(torch.stack([X, X]))


def test_noise_under_vmap_needs_a_choice():
    """It is an error by default, as for torch's Dropout; ``randomness`` selects the same mask or different ones."""
    module = as_module(fn.Dropout(0.5), {})
    x = torch.ones(4, 100)
    with pytest.raises(RuntimeError, match="randomness"):
        vmap(module)(x)
    same, different = vmap(module, randomness="same")(x), vmap(module, randomness="different")(x)
    assert torch.equal(same[0], same[1])
    assert not torch.equal(different[0], different[1])


# what is computed, and what is kept


@fn.frozen
class Counted(fn.Layer):
    """A Linear that records the called methods."""

    calls: tuple = ()

    def init(self, rng):
        return fn.Linear(2, 3).init(rng)

    def apply(self, params, x, rng=None):
        SEEN.append("apply")
        return fn.Linear(2, 3).apply(params, x)

    def __call__(self, params, x, rng=None):
        SEEN.append("call")
        return fn.Linear(2, 3)(params, x)

    def vjp(self, params, cache, gy):
        SEEN.append("vjp")
        return fn.Linear(2, 3).vjp(params, cache, gy)

    def grads(self, params, cache, gy):
        SEEN.append("grads")
        return fn.Linear(2, 3).grads(params, cache, gy)

    def input_grad(self, params, cache, gy):
        SEEN.append("input_grad")
        return fn.Linear(2, 3).input_grad(params, cache, gy)


SEEN: list[str] = []


def test_only_what_is_needed_is_computed():
    """The module calls ``grads``, ``input_grad`` or both, and only the net if no gradient is needed."""
    module, x = as_module(Counted(), fn.Linear(2, 3).init(0)), X.float()

    def seen(x):
        SEEN.clear()
        y = module(x)
        if y.requires_grad:
            y.sum().backward()
        return SEEN.copy()

    assert seen(x) == ["apply", "grads"]
    assert seen(asking(x)) == ["apply", "vjp"]
    with torch.no_grad():
        assert seen(x) == ["call"]
    module.requires_grad_(requires_grad=False)
    assert seen(asking(x)) == ["apply", "input_grad"]
    assert seen(x) == ["call"]


def test_a_parameter_that_asks_for_nothing_gets_nothing():
    """Other parameters in the module do get gradients."""
    module = as_module(NET, PARAMS)
    module.get_parameter("0.weight").requires_grad_(requires_grad=False)
    module(X).sum().backward()
    assert module.get_parameter("0.weight").grad is None
    assert module.get_parameter("0.bias").grad is not None


def test_a_graph_serves_once_unless_it_is_retained():
    """In-place writes to saved tensors are detected."""
    module = as_module(NET, PARAMS)
    y = module(X).sum()
    y.backward(retain_graph=True)
    one = module.get_parameter("0.weight").grad.clone()
    y.backward()
    assert torch.equal(module.get_parameter("0.weight").grad, 2 * one)
    with pytest.raises(RuntimeError, match="second time"):
        y.backward()
    y = module(X).sum()
    with torch.no_grad():
        module.get_parameter("3.weight").add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def test_writes_to_outputs():
    """They are allowed unless the backward pass needs the output or it shares memory with x."""
    x = asking(X)
    y = as_module(fn.serial(fn.Flatten(), fn.Linear(2, 6), fn.Unflatten(1, (2, 3))), ({}, fn.Linear(2, 6).init(0), {})).double()(
        x
    )
    y.mul_(2)
    assert torch.autograd.grad(y.sum(), x)[0].shape == x.shape
    y = as_module(fn.Tanh(), {})(x)
    y.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
    for net in (fn.Flatten(0), fn.serial()):
        with pytest.raises(RuntimeError, match="is a view and is being modified inplace"):
            as_module(net, net.init(0))(x).mul_(2)
    assert torch.equal(x.detach(), X)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpoints_of_activations_draw_the_same_noise(use_reentrant):
    """The cache is dropped and recomputed with the earlier state of torch's generator."""
    net = fn.serial(fn.Linear(2, 30), fn.Dropout(0.5), fn.Linear(30, 3))
    module = as_module(net, net.init(0)).double()
    found = []
    for call in (module, lambda x: checkpoint(module, x, use_reentrant=use_reentrant)):
        torch.manual_seed(4)
        x = asking(X)
        call(x).square().sum().backward()
        found.append(x.grad)
    assert torch.equal(*found)


def test_hooks_see_the_cache_and_the_module():
    """These are hooks for saved tensors, and forward and backward hooks of modules."""
    module, seen = as_module(NET, PARAMS), []
    x = asking(X)
    with save_on_cpu():
        y = module(x)
    expected = torch.autograd.grad(module(x).sum(), x)[0]
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], expected)
    module.register_forward_hook(lambda module, inputs, y: seen.append(y.shape))
    module.register_full_backward_hook(lambda module, gx, gy: seen.append(gx[0].shape))
    module(x).sum().backward()
    assert seen == [(5, 3), (5, 2)]


# the function


def test_differentiable_is_the_net_as_a_function():
    """It takes params and x as trees, with a key, and computes the net."""
    net = fn.serial(fn.Linear(2, 30), fn.Dropout(0.5), fn.branch(fn.Linear(30, 2), fn.Linear(30, 3)))
    params = tree.cast(net.init(0), torch.float64)
    f, asked = differentiable(net), asking(params)
    y = f(asked, X, 5)
    expected, cache = net.apply(params, X, 5)
    assert tree.equal(y, expected)
    gy = drawn_like(expected)
    found = torch.autograd.grad(y, tree.leaves(asked), gy)
    assert tree.equal([*found], tree.leaves(net.grads(params, cache, gy)))
    pulled = vjp(lambda params: f(params, X, 5), params)[1](gy)[0]
    assert tree.allclose(pulled, net.grads(params, cache, gy))
    assert eval(repr(f), {**vars(fn), "differentiable": differentiable}) == f


def test_differentiable_refuses_params_that_are_no_tensors():
    """The error is the layer's, whether or not autograd is recording."""
    for x in (X, X.clone().requires_grad_()):
        with pytest.raises(ValueError, match=r"Linear.* params must be a dict of weight \(3, 2\), bias \(3,\)"):
            differentiable(fn.Linear(2, 3))((2, 3), x)


def test_differentiable_refuses_what_is_no_layer():
    """Errors of the net pass through, forward and backward."""
    with pytest.raises(ValueError, match="differentiable: a layer is required"):
        differentiable(torch.tanh)
    with pytest.raises(ValueError, match="it must be a key"):
        differentiable(NET)(PARAMS, X, 0.5)
    with pytest.raises(ValueError, match="the last axis of x must be in_features=2"):
        differentiable(NET)(asking(PARAMS[:1]) + PARAMS[1:], X.T)
