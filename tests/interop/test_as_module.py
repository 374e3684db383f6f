"""as_module: parameters, buffers and their names, modes, and common uses of modules."""

import copy
import pickle
import re
from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

import funcnet as fn
from funcnet import tree
from funcnet.interop.torch_nn import as_module, lift

X = fn.random.normal(0, (8, 3))
NET = fn.serial(fn.Linear(3, 5), fn.BatchNorm1d(5), fn.Tanh(), fn.Linear(5, 2))
PARAMS = NET.init(0)


def twin() -> nn.Module:
    """Return the same net from torch.nn, with the same parameters."""
    theirs = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 2))
    theirs.load_state_dict(as_module(NET, PARAMS).state_dict())
    return theirs


def grads_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return the gradients of a module's parameters by name."""
    return {name: p.grad for name, p in module.named_parameters()}


# names and roles


def test_parameters_and_buffers_have_the_paths_of_params():
    """They are in nested holders, so ``get_parameter`` finds them; statistics and counters are buffers."""
    module = as_module(NET, PARAMS)
    assert list(module.state_dict()) == list(tree.names(PARAMS)) == list(twin().state_dict())
    assert {name for name, _ in module.named_buffers()} == {
        f"1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")
    }
    assert module.get_parameter("0.weight") is dict(module.named_parameters())["0.weight"]
    assert tree.equal(module.params(), PARAMS)


def test_params_are_copied_both_ways():
    """A step of the module changes no params, and results of ``params`` do not change later."""
    params = NET.init(0)
    module = as_module(NET, params)
    before = module.params()
    with torch.no_grad():
        module.get_parameter("0.weight").add_(1)
    assert tree.equal(params, PARAMS)
    assert tree.equal(before, PARAMS)
    assert torch.equal(module.params()[0]["weight"], PARAMS[0]["weight"] + 1)
    assert not any(leaf.requires_grad for leaf in tree.leaves(module.params()))


def test_frozen_layers_have_parameters_without_gradients():
    """Examples are ``freeze``, and the layer that ``lora`` changes; statistics inside are still buffers."""
    net = fn.serial(fn.freeze(fn.serial(fn.Linear(3, 4), fn.BatchNorm1d(4))), fn.lora(fn.Linear(4, 2), 1))
    module = as_module(net, net.init(0))
    trained = {name for name, p in module.named_parameters() if p.requires_grad}
    assert trained == {"1.lora_A", "1.lora_B"}
    assert {"0.1.running_mean", "0.1.num_batches_tracked"} <= {name for name, _ in module.named_buffers()}
    assert "1.layer.weight" in dict(module.named_parameters())
    module(X).sum().backward()
    assert {name for name, g in grads_of(module).items() if g is not None} == trained


def test_vectors_of_spectral_norm_are_buffers_that_move():
    """They have the names of torch's parametrization; each of two calls before a backward pass keeps its own."""
    net = fn.spectral_norm(fn.Linear(3, 2))
    params = net.init(0)
    module = as_module(net, params)
    assert {name for name, _ in module.named_buffers()} == {f"parametrizations.weight.0.{name}" for name in ("_u", "_v")}
    (module(X).sum() + module(X).sum()).backward()
    y, cache = net.apply(params, X)
    moved = net.update_stats(params, cache)
    again = net.apply(moved, X)[1]
    gy = torch.ones_like(y)
    expected = tree.add(net.grads(params, cache, gy), net.grads(moved, again, gy))
    assert tree.allclose(tree.from_names(grads_of(module)), tree.from_names(tree.names(expected)), rtol=1e-6, atol=1e-6)
    assert tree.equal(module.params(), net.update_stats(moved, again))


def test_a_lifted_module_keeps_its_parameters_and_buffers():
    """Nested statistics are buffers, which are updated; a frozen parameter is not trained."""
    theirs = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 2))
    theirs[2].bias.requires_grad_(False)
    module = as_module(*lift(theirs, X))
    assert [name for name, p in module.named_parameters() if p.requires_grad] == [
        "0.weight",
        "0.bias",
        "1.weight",
        "1.bias",
        "2.weight",
    ]
    theirs(X).sum().backward()
    module(X).sum().backward()
    assert all(torch.allclose(leaf, module.state_dict()[name]) for name, leaf in theirs.state_dict().items())
    assert all(g is None or torch.allclose(g, grads_of(module)[name]) for name, g in grads_of(theirs).items())


def test_a_state_dict_of_torch_with_all_names_of_a_tie_is_loaded():
    """Strict loading works, also within another module, unless the two values differ."""
    theirs = nn.Sequential(OrderedDict(a=nn.Linear(3, 3), b=nn.Linear(3, 3)))
    theirs.b.weight = theirs.a.weight
    net = fn.tied(fn.serial(a=fn.Linear(3, 3), b=fn.Linear(3, 3)), ("a.weight", "b.weight"))
    module = as_module(net, net.init(0))
    nn.ModuleDict({"body": module}).load_state_dict(nn.ModuleDict({"body": theirs}).state_dict())
    assert torch.equal(module(X), theirs(X))
    differing = theirs.state_dict() | {"b.weight": torch.ones(3, 3)}
    with pytest.raises(RuntimeError, match=r'Unexpected key\(s\) in state_dict: "b\.weight"'):
        module.load_state_dict(differing)
    assert {"a.weight", "b.weight"} <= differing.keys()


def test_a_tie_is_one_parameter():
    """Either ``tied`` leaves a path empty, or a tensor is at two paths."""
    net = fn.tied(fn.serial(fn.Linear(3, 3, bias=False), fn.Tanh(), fn.Linear(3, 3, bias=False)), ("0.weight", "2.weight"))
    module = as_module(net, net.init(0))
    assert list(module.state_dict()) == ["0.weight"]
    assert module.params()[2] == {"weight": None}
    net, w = net.layer, net.init(0)[0]["weight"]
    shared = as_module(net, ({"weight": w}, {}, {"weight": w}))
    assert list(shared.state_dict()) == ["0.weight", "2.weight"]
    assert len([*shared.parameters()]) == 1
    torch.autograd.backward([module(X).sum(), shared(X).sum()])
    assert torch.allclose(module.get_parameter("0.weight").grad, shared.get_parameter("2.weight").grad)


@fn.frozen
class Shift(fn.Layer):
    """A layer whose params are a tensor."""

    def init(self, rng):
        return torch.zeros(3)

    def apply(self, params, x, rng=None):
        return x + params, ()

    def vjp(self, params, cache, gy):
        return gy.sum(0), gy


def test_params_that_are_one_tensor():
    """Within a net the parameter has the layer's path; by itself it is called weight."""
    module = as_module(fn.serial(Shift(), fn.Linear(3, 2)), (torch.ones(3), fn.Linear(3, 2).init(0)))
    assert list(module.state_dict()) == ["0", "1.weight", "1.bias"]
    lone = as_module(Shift(), torch.ones(3))
    assert list(lone.state_dict()) == ["weight"]
    lone(X).sum().backward()
    assert torch.equal(lone.get_parameter("weight").grad, torch.full((3,), 8.0))
    assert torch.equal(lone.params(), torch.ones(3))


def test_the_print_shows_the_net():
    """It is the repr of the net."""
    assert str(fn.serial(fn.Linear(3, 2), fn.Tanh())) in repr(
        as_module(fn.serial(fn.Linear(3, 2), fn.Tanh()), fn.serial(fn.Linear(3, 2), fn.Tanh()).init(0))
    )


# modes


def test_training_moves_statistics_as_torch_does():
    """They change in place, in training mode only; evaluation uses them."""
    module, theirs = as_module(NET, PARAMS), twin()
    held = dict(module.named_buffers())
    for one in (module, theirs):
        one(X)
        one(2 * X)
    assert all(torch.allclose(held[name], found) for name, found in theirs.named_buffers())
    assert all(found is held[name] for name, found in module.named_buffers())
    before = module.params()
    y = module.eval()(X)
    assert torch.allclose(y, theirs.eval()(X), atol=1e-6)
    assert torch.equal(y, NET.inference()(module.params(), X))
    assert tree.equal(module.params(), before)


def test_statistics_move_without_gradients_too():
    """They change under ``no_grad`` and ``inference_mode`` too, as in torch."""
    for context in (torch.no_grad, torch.inference_mode):
        module = as_module(NET, PARAMS)
        with context():
            y = module(X)
        assert not y.requires_grad
        y, cache = NET.apply(PARAMS, X)
        assert tree.equal(module.params(), NET.update_stats(PARAMS, cache))


def test_noise_follows_the_generator_of_torch():
    """The same seed gives the same output; each call samples again; evaluation does not sample."""
    net = fn.serial(fn.Linear(3, 50), fn.Dropout(0.5))
    module = as_module(net, net.init(0))
    torch.manual_seed(3)
    one, other = module(X), module(X)
    torch.manual_seed(3)
    assert torch.equal(module(X), one)
    assert not torch.equal(one, other)
    state = torch.get_rng_state()
    module.eval()(X)
    assert torch.equal(torch.get_rng_state(), state)


# common uses of modules


def test_training_with_torch_equals_training_with_funcnet():
    """Five steps of SGD with momentum agree up to rounding."""
    module, params, opt = as_module(NET, PARAMS), PARAMS, fn.SGD(lr=0.1, momentum=0.9)
    theirs, state = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9, foreach=False), opt.init(params)
    target = fn.random.normal(1, (8, 2))
    for _ in range(5):
        theirs.zero_grad()
        nn.functional.mse_loss(module(X), target).backward()
        theirs.step()
        y, cache = NET.apply(params, X)
        grads = NET.grads(params, cache, fn.MSE().value_and_grad(y, target)[1])
        params, state = opt.update(grads, state, NET.update_stats(params, cache))
    assert tree.allclose(module.params(), params, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("way", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))], ids=["deepcopy", "pickle"])
def test_copies_are_modules_apart(way):
    """They compute the same, and writes to one do not affect the other."""
    module = as_module(NET, PARAMS)
    twin = way(module)
    assert torch.equal(twin(X), module(X))
    assert tree.equal(twin.params(), module.params())
    twin(3 * X)
    with torch.no_grad():
        twin.get_parameter("0.weight").zero_()
    assert not torch.equal(twin.params()[1]["running_mean"], module.params()[1]["running_mean"])
    assert torch.equal(module.params()[0]["weight"], PARAMS[0]["weight"])


def test_dtypes_and_devices_change_as_in_any_module():
    """Floating leaves change, counters do not, and prepared calls see the change."""
    module = as_module(NET, PARAMS)
    assert module.double()(X.double()).dtype is torch.float64
    assert module.get_buffer("1.num_batches_tracked").dtype is torch.int64
    assert module.half()(X.half()).dtype is torch.float16
    assert module.to("meta")(X.half().to("meta")).is_meta
    restored = as_module(NET, NET.init(1)).to(torch.float32)
    restored.load_state_dict(as_module(NET, PARAMS).state_dict())
    assert tree.equal(restored.params(), PARAMS)


def test_helpers_of_torch_take_it(tmp_path):
    """Examples are vectors of parameters, saved state dicts, EMA models, and ``nn.Sequential``."""
    module = as_module(NET, PARAMS)
    vector = parameters_to_vector(module.parameters())
    vector_to_parameters(2 * vector, module.parameters())
    assert torch.equal(parameters_to_vector(module.parameters()), 2 * vector)
    torch.save(module.state_dict(), tmp_path / "state.pt")
    other = as_module(NET, PARAMS)
    other.load_state_dict(torch.load(tmp_path / "state.pt"))
    assert torch.equal(other(X), module(X))
    average = torch.optim.swa_utils.AveragedModel(module, use_buffers=True)
    average.update_parameters(other)
    outer = nn.Sequential(OrderedDict(inner=module, head=nn.Linear(2, 1)))
    assert "inner.0.weight" in outer.state_dict()
    outer(X).sum().backward()
    assert all(p.grad is not None for p in outer.parameters())


def test_parametrizations_of_torch_are_seen():
    """``torch.nn.utils.parametrize`` can be applied to a parameter of the net, which then is no longer in its holder."""
    module = as_module(fn.Linear(3, 2), fn.Linear(3, 2).init(0))
    nn.utils.parametrize.register_parametrization(module, "weight", nn.Tanh())
    y = module(X)
    assert torch.allclose(y, nn.functional.linear(X, module.weight, module.bias))
    y.sum().backward()
    assert module.parametrizations.weight.original.grad is not None


def test_inputs_and_outputs_may_be_trees():
    """The entries of a tuple are separate arguments, a dict is one; an unused part of y gets a gradient of 0."""
    module = as_module(fn.Add(), {})
    one, other = X.clone().requires_grad_(), X.clone().requires_grad_()
    assert torch.equal(module(one, other), module((one, other)))
    net = fn.branch(fn.Linear(3, 2), fn.Linear(3, 4))
    params = net.init(0)
    both = as_module(net, params)
    assert isinstance(both(X), tuple)
    both(X)[1].sum().backward()
    assert torch.count_nonzero(both.get_parameter("0.weight").grad) == 0
    y, cache = net.apply(params, X)
    expected = net.grads(params, cache, (torch.zeros_like(y[0]), torch.ones_like(y[1])))
    assert torch.equal(both.get_parameter("1.weight").grad, expected[1]["weight"])


def test_integers_go_in():
    """For an embedding, x has no gradient."""
    net = fn.serial(fn.Embedding(7, 3), fn.Linear(3, 2))
    module = as_module(net, net.init(0))
    module(torch.tensor([1, 1, 4])).sum().backward()
    assert (module.get_parameter("0.weight").grad.abs().sum(1) > 0).tolist() == [False, True, False, False, True, False, False]


# errors


def test_layers_are_replaced_in_the_net_only():
    """A replacement module would be in ``parameters`` but never called; additional modules are allowed."""
    module = as_module(NET, PARAMS)
    rule = "as_module: '3' is a layer of the net, which calls its own layers; replace it in the net, with fn.replace, got "
    for change in (
        lambda: setattr(module, "3", nn.Linear(5, 9)),
        lambda: module.add_module("3", nn.Linear(5, 9)),
        lambda: delattr(module, "3"),
    ):
        with pytest.raises(ValueError, match=re.escape(rule)):
            change()
    module.head = nn.Linear(2, 1)
    assert module.head(module(X)).shape == (8, 1)
    assert "head.weight" in copy.deepcopy(module).state_dict()
    del module.head


def test_errors_of_the_net_pass_through():
    """They have the path in the net."""
    module = as_module(NET, PARAMS)
    with pytest.raises(ValueError, match="the last axis of x must be in_features=3") as error:
        module(X[:, :2])
    assert error.value.__notes__ == ["  in serial, layer 0"]


REFUSED = {
    "no layer": (nn.Linear(3, 2), {}, "as_module: a layer is required"),
    "missing": (NET, (PARAMS[0], PARAMS[1], {}, {"weight": PARAMS[3]["weight"]}), "no '3.bias'"),
    "extra": (fn.Linear(3, 2), {**fn.Linear(3, 2).init(0), "scale": torch.ones(2)}, "'scale', which the net lacks"),
    "shape": (fn.Linear(3, 2), fn.Linear(3, 4).init(0), r"'weight' of shape \(4, 3\) instead of \(2, 3\)"),
    "no tensor": (fn.Linear(3, 2), {"weight": [1.0], "bias": None}, "every leaf of params must be a tensor"),
    "no tree": (fn.Linear(3, 2), None, "no 'weight'"),
    "taken name": (
        fn.serial(half=fn.Linear(3, 2)),
        {"half": fn.Linear(3, 2).init(0)},
        "a name in params must be free in torch.nn.Module",
    ),
}


@pytest.mark.parametrize(("net", "params", "message"), REFUSED.values(), ids=REFUSED)
def test_what_makes_no_module_is_refused(net, params, message):
    """The error has the paths."""
    with pytest.raises(ValueError, match=message if "\\" in message else re.escape(message)):
        as_module(net, params)
