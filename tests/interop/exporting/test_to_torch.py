"""Nets as torch.nn modules: ties, frozen params, modes, noise, names, copies, transforms and errors."""

import copy
import io
import pickle

import pytest
import torch
from module_comparison import assert_module_agrees, assert_same
from torch import nn

import funcnet as fn
from funcnet import tree
from funcnet.interop.torch_nn import to_torch

X = fn.random.normal(1, (5, 3))
LANGUAGE = fn.tied(fn.serial(fn.Embedding(7, 3), fn.Tanh(), fn.Linear(3, 7, bias=False)), ("0.weight", "2.weight"))
CONVOLUTIONS = fn.serial(
    fn.Conv2d(2, 4, 3, padding=1),
    fn.BatchNorm2d(4),
    fn.residual(fn.serial(fn.Conv2d(4, 4, 3, padding="same", bias=False), fn.BatchNorm2d(4), fn.ReLU())),
    fn.graph("x", a=(fn.Conv2d(4, 3, 1), "x"), b=(fn.Sigmoid(), "a"), y=(fn.Mul(), "a", "b")),
    fn.GlobalAvgPool(),
    fn.Linear(3, 2),
)
IMAGES = fn.random.normal(2, (3, 2, 5, 4))


def trained(module, net, params, x, steps=4):
    """Take steps of SGD with torch.optim and with funcnet's; return the module's weights, and the params."""
    opt, ours = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9), fn.SGD(lr=0.1, momentum=0.9)
    state = ours.init(params)
    for _ in range(steps):
        opt.zero_grad()
        y = module(x)
        y.square().mean().backward()
        opt.step()
        y, cache = net.apply(params, x)
        grads = net.grads(params, cache, 2 * y / y.numel())
        params, state = ours.update(grads, state, net.update_stats(params, cache))
    return module.state_dict(), params


def test_a_serial_becomes_torchs_sequential():
    """It can have names, and be inside another one."""
    net = fn.serial(fn.serial(a=fn.Linear(3, 4), b=fn.ReLU()), fn.Linear(4, 2))
    module = to_torch(net, net.init(0))
    assert type(module) is type(module[0]) is nn.Sequential
    assert type(module[0].a) is nn.Linear
    assert [*module.state_dict()] == ["0.a.weight", "0.a.bias", "1.weight", "1.bias"]


def test_training_the_module_is_training_the_net():
    """Weights, running statistics and counts agree after SGD steps in float64."""
    for net, x in ((CONVOLUTIONS, IMAGES.double()), (LANGUAGE, torch.arange(14).reshape(2, 7) % 7)):
        params = tree.cast(net.init(0), torch.float64)
        weights, params = trained(to_torch(net, params), net, params, x)
        assert_same("trained", dict(weights), tree.names(params))


def test_params_are_copied():
    """Training does not change them, and torch's generator is not used."""
    params, before = CONVOLUTIONS.init(0), torch.get_rng_state()
    module, kept = to_torch(CONVOLUTIONS, params), tree.map(torch.clone, params)
    assert torch.equal(torch.get_rng_state(), before)
    trained(module, CONVOLUTIONS, params, IMAGES)
    assert tree.equal(params, kept)


def test_params_made_in_inference_mode_can_be_trained():
    """They are copied as plain tensors, even within that mode."""
    with torch.inference_mode():
        net = fn.Linear(3, 2)
        module = to_torch(net, net.init(0))
    module(X).sum().backward()
    assert module.weight.grad is not None


def test_tied_places_are_one_parameter():
    """It is at each path; ``state_dict`` has only the first key, but all keys can be loaded."""
    module = to_torch(LANGUAGE, LANGUAGE.init(0))
    assert module[0].weight is module[2].weight
    assert [*dict(module.named_parameters())] == [*module.state_dict()] == ["0.weight"]
    outer = to_torch(fn.serial(LANGUAGE, fn.Softmax(-1)), (LANGUAGE.init(1), {}))
    assert [*outer.state_dict()] == ["0.0.weight"]
    for one in (copy.deepcopy(outer), pickle.loads(pickle.dumps(outer))):
        assert one[0][0].weight is one[0][2].weight
        one.load_state_dict({f"0.{path}": leaf for path, leaf in module.state_dict().items()})
        assert torch.equal(one[0][2].weight, module[0].weight)
        one.load_state_dict({"0.0.weight": outer[0][0].weight, "0.2.weight": outer[0][0].weight})
        assert torch.equal(one[0][2].weight, outer[0][0].weight)


def test_a_tensor_at_several_places_is_one_parameter():
    """This holds in a plain net too, where each path has its own key; running statistics stay separate."""
    net = fn.serial(fn.Linear(3, 3), fn.BatchNorm1d(3), fn.Linear(3, 3), fn.BatchNorm1d(3))
    (linear, norm, *_) = net.init(0)
    module = to_torch(net, (linear, norm, linear, norm))
    assert module[0].weight is module[2].weight
    assert module[1].weight is module[3].weight
    assert module[1].running_mean is not module[3].running_mean
    assert len(module.state_dict()) == 14


def test_ties_reach_into_wrapped_layers():
    """A wrapped layer shares its parameter too."""
    net = fn.tied(fn.serial(fn.Scale(3), fn.Tanh(), fn.Scale(3)), ("0.weight", "2.weight"))
    module = assert_module_agrees(net, net.init(0), X)
    assert module.get_parameter("0.weight") is module.get_parameter("2.weight")


def test_a_tie_of_a_frozen_place_and_a_trained_one_has_the_nets_gradients():
    """Only the trained leaf has a gradient."""
    net = fn.tied(fn.serial(fn.freeze(fn.Linear(3, 3)), fn.Tanh(), fn.Linear(3, 3)), ("0", "2"))
    params = tree.cast(net.init(0), torch.float64)
    module, x = to_torch(net, params), X.double()
    module(x).sum().backward()
    y, cache = net.apply(params, x)
    want = tree.names(net.grads(params, cache, torch.ones_like(y)))
    got = {path: leaf.grad for path, leaf in module.named_parameters() if leaf.grad is not None}
    assert_same("gradients", got, want)


def test_frozen_layers_require_no_gradient():
    """Their running statistics still change, and gradients pass through."""
    net = fn.serial(fn.Linear(3, 4), fn.freeze(fn.serial(fn.Linear(4, 4), fn.BatchNorm1d(4))), fn.Scale(4))
    module = assert_module_agrees(net, net.init(0), X)
    assert [path for path, leaf in module.named_parameters() if leaf.requires_grad] == ["0.weight", "0.bias", "2.weight"]


def test_dropout_is_drawn_from_torchs_generator():
    """Native and wrapped modules apply it in train mode only."""
    net = fn.serial(fn.Dropout(0.5), fn.DropPath(0.5), fn.LSTM(3, 4, 2, dropout=0.5), fn.Select(0))
    module, x = to_torch(net, net.init(0)), X.abs().repeat(4, 8, 1)

    def output(seed):
        torch.manual_seed(seed)
        return module(x)

    assert torch.equal(output(0), output(0))
    assert not torch.equal(output(0), output(1))
    module.eval()
    assert torch.equal(output(0), output(1))


def test_dropout2d_takes_images_without_a_batch():
    """Three axes are (channels, height, width), as in the net, and whole channels are dropped."""
    torch.manual_seed(0)
    y = to_torch(fn.Dropout2d(0.5), {})(torch.ones(64, 3, 2))
    assert {*y.mean((1, 2)).tolist()} == {0.0, 2.0}


def test_recurrent_modules_take_a_state_and_lengths():
    """They can be separate arguments, or the tuple returned by an earlier layer."""
    options = {"batch_first": True, "bidirectional": True}
    for net in (fn.LSTM(3, 4, **options), fn.GRU(3, 4, 2, **options), fn.RNN(3, 4, **options)):
        params, x, lengths = net.init(0), fn.random.normal(0, (2, 5, 3)), torch.tensor([5, 2])
        state = net(params, x)[1]
        for given in ((x,), (x, None), (x, state), (x, None, lengths), (x, state, lengths)):
            module = assert_module_agrees(net, params, given if len(given) > 1 else x)
            assert isinstance(module, getattr(nn, type(net).__name__))
            assert_module_agrees(fn.serial(fn.Identity(), net), ({}, params), given if len(given) > 1 else x)


def test_names_of_modules_own_attributes_are_names_of_layers_too():
    """``nn.Sequential`` would reject them."""
    net = fn.serial(
        forward=fn.Linear(3, 3), train=fn.Tanh(), append=fn.graph("x", half=(fn.Linear(3, 2), "x"), net=(fn.Sin(), "half"))
    )
    module = assert_module_agrees(net, net.init(0), X)
    assert isinstance(module, nn.Sequential)


def test_padding_rows_are_zeros_whatever_the_table_holds():
    """If the row is 0, torch's own class is enough."""
    layer = fn.Embedding(4, 3, padding_idx=-1)
    params, x = layer.init(0), torch.tensor([3, 0, 3])
    assert type(to_torch(layer, params)) is nn.Embedding
    module = assert_module_agrees(layer, {"weight": params["weight"] + 1}, x)
    assert isinstance(module, nn.Embedding)


def test_modules_convert_dtypes_and_save():
    """``.double()`` and ``torch.save`` of the ``state_dict`` work."""
    params, file = CONVOLUTIONS.init(0), io.BytesIO()
    module = to_torch(CONVOLUTIONS, params).double()
    torch.save(module.state_dict(), file)
    other = to_torch(CONVOLUTIONS, CONVOLUTIONS.init(1)).double()
    other.load_state_dict(torch.load(io.BytesIO(file.getvalue())))
    assert_same(
        "loaded", other.eval()(IMAGES.double()), CONVOLUTIONS.inference()(tree.cast(params, torch.float64), IMAGES.double())
    )


def test_modules_work_under_torch_func():
    """``functional_call``, ``grad`` and ``vmap`` over rows work."""
    module = to_torch(CONVOLUTIONS, CONVOLUTIONS.init(0)).eval()
    state = {path: leaf.detach() for path, leaf in module.named_parameters()}

    def loss(weights, x):
        return torch.func.functional_call(module, weights, (x[None],)).square().sum()

    rows = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(state, IMAGES)
    module(IMAGES).square().sum().backward()
    for path, leaf in module.named_parameters():
        torch.testing.assert_close(rows[path].sum(0), leaf.grad)


def test_modules_run_on_the_meta_device():
    """Meta params give a module on the meta device."""
    params = tree.to(CONVOLUTIONS.init(0), "meta")
    assert to_torch(CONVOLUTIONS, params)(IMAGES.to("meta")).shape == (3, 2)


def test_a_module_prints_how_it_is_wired():
    """A graph shows the inputs of each node."""
    text = repr(to_torch(CONVOLUTIONS, CONVOLUTIONS.init(0)))
    assert "(2): residual(" in text
    assert "y <- a, b" in text
    assert "(y): Mul()" in text


@pytest.mark.compiled
def test_modules_compile_and_export_as_one_graph():
    """Training with ``fullgraph=True`` and ``torch.export`` in evaluation work."""
    params = CONVOLUTIONS.init(0)
    module, other = to_torch(CONVOLUTIONS, params), to_torch(CONVOLUTIONS, params)
    compiled = torch.compile(module, fullgraph=True)
    torch.testing.assert_close(compiled(IMAGES), other(IMAGES))
    compiled(IMAGES).sum().backward()
    assert all(leaf.grad is not None for leaf in module.parameters())
    exported = torch.export.export(other.eval(), (IMAGES,)).module()
    torch.testing.assert_close(exported(IMAGES), other(IMAGES))


REFUSED = {
    "to_torch: a layer is required (a value with init, apply and vjp), got Linear(in_features=3, out_features=2": (
        lambda: to_torch(nn.Linear(3, 2), {}),
        [],
    ),
    "Linear(in_features=3, out_features=2): params must be a dict of weight (2, 3), bias (2,), got": (
        lambda: to_torch(fn.serial(fn.Linear(3, 2)), ({"weight": torch.zeros(2, 3)},)),
        ["in serial, layer 0"],
    ),
    "Linear(in_features=3, out_features=2, bias=False): weight must be a floating tensor, got": (
        lambda: to_torch(fn.Linear(3, 2, bias=False), {"weight": torch.zeros(2, 3).int()}),
        [],
    ),
    "Tanh(): params must be an empty dict, got a tensor of shape (1,)": (
        lambda: to_torch(fn.graph("x", a=(fn.Tanh(), "x")), {"a": torch.zeros(1)}),
        ["in graph, node 'a'"],
    ),
    "Add(): params must be an empty dict, got a dict with the keys 'w'": (lambda: to_torch(fn.Add(), {"w": X}), []),
    "serial: params must be a tuple of 1, one entry per layer, got": (lambda: to_torch(fn.serial(fn.Tanh()), {}), []),
    "Linear(in_features=None, out_features=2): in_features must be inferred first": (
        lambda: to_torch(fn.Linear(None, 2), {"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}),
        [],
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_refused(message):
    """The error has the caller, the rule, the value, and the path in the net."""
    call, notes = REFUSED[message]
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the message is compared)
        call()
    assert str(caught.value).startswith(message)
    assert [note.strip() for note in getattr(caught.value, "__notes__", [])] == notes


@pytest.mark.compiled
def test_transformers_compile_and_export_with_attention_that_is_wrapped():
    """Weights and gradients agree, and ``torch.export`` does not change the module."""
    net = fn.tied(
        fn.serial(fn.Embedding(7, 8), fn.transformer_encoder_block(8, 2), fn.Linear(8, 7, bias=False)), ("0.weight", "2.weight")
    )
    module, x = to_torch(net, net.init(0)), torch.arange(12).reshape(2, 6) % 7
    want = module(x)
    want.square().sum().backward()
    grads = {path: leaf.grad for path, leaf in module.named_parameters()}
    module.zero_grad()
    y = torch.compile(module, fullgraph=True, backend="aot_eager")(x)
    y.square().sum().backward()
    torch.testing.assert_close(y, want)
    for path, leaf in module.named_parameters():
        torch.testing.assert_close(leaf.grad, grads[path], rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        exported = torch.export.export(module.eval(), (x,)).module()
        torch.testing.assert_close(exported(x), want)
    assert torch.equal(module(x), net(net.init(0), x))
