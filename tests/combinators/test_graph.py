"""Graphs with reused layers, dotted names, nodes without inputs, and values without a gradient."""

import pytest
import torch

import funcnet as fn

SIAMESE = fn.graph("a", "b", f=(fn.Linear(3, 4), "a"), g=("f", "b"), norm=(fn.BatchNorm1d(4), "f"), again=("norm", "g"),
                   y=(fn.Sub(), "norm", "again"))  # fmt: skip
DOTTED = fn.graph(
    "x", **{"blocks.0": (fn.Linear(3, 3), "x"), "act": (fn.Tanh(), "blocks.0"), "blocks.1": (fn.Linear(3, 2), "act")}
)


@pytest.mark.parametrize("net", [SIAMESE, DOTTED], ids=["siamese", "dotted"])
def test_the_laws_hold(net):
    """Siamese graphs and dotted names keep the contract."""
    x = fn.random.normal(fn.key(1), (5, 3))
    fn.testing.check_laws(net, (x, 2 * x) if net is SIAMESE else x, compiled=False)


def test_a_layer_used_again_sums_its_gradients():
    """y = f(a) - f(b): there is one layer, and its gradient is the sum."""
    net = fn.graph("a", "b", f=(fn.Linear(3, 4), "a"), g=("f", "b"), y=(fn.Sub(), "f", "g"))
    params, (a, b) = net.init(0), fn.random.normal(fn.key(1), (2, 5, 3))
    assert list(params) == ["f", "y"]
    y, cache = net.apply(params, (a, b))
    torch.testing.assert_close(y, (a - b) @ params["f"]["weight"].T)
    grads = net.grads(params, cache, torch.ones_like(y))
    torch.testing.assert_close(grads["f"]["weight"], (a - b).sum(0).expand(4, 3))
    assert list(fn.walk(net))[1][0] == "f"
    assert len(list(fn.walk(net))) == 3


def test_running_statistics_move_once_for_each_use():
    """The statistics move in the order of evaluation, each time from their last values."""
    a, b = fn.random.normal(fn.key(1), (2, 5, 3))
    params = SIAMESE.init(0)
    _, cache = SIAMESE.apply(params, (a, b))
    moved = SIAMESE.update_stats(params, cache)
    norm, inner = SIAMESE["norm"], params["f"]
    want = params["norm"]
    for x in (a, b):
        want = norm.update_stats(want, norm.apply(want, SIAMESE["f"](inner, x))[1])
    assert fn.tree.equal(moved["norm"], want)
    assert moved["norm"]["num_batches_tracked"] == 2


def test_noise_differs_from_use_to_use():
    """Every use has its own key."""
    net = fn.graph("x", one=(fn.Dropout(0.5), "x"), two=("one", "x"), y=(fn.Concat(0), "one", "two"))
    one, two = net({"one": {}, "y": {}}, torch.ones(1, 64), 3)
    assert not torch.equal(one, two)


def test_dotted_names_nest_params():
    """The paths of params follow the names, and other params are refused."""
    params = DOTTED.init(0)
    assert list(fn.tree.names(params)) == ["blocks.0.weight", "blocks.0.bias", "blocks.1.weight", "blocks.1.bias"]
    assert fn.at(DOTTED, "blocks.1") == fn.Linear(3, 2)
    same = fn.serial(fn.Linear(3, 3), fn.Tanh(), fn.Linear(3, 2))
    x = torch.ones(2, 3)
    torch.testing.assert_close(DOTTED(params, x), same((params["blocks"]["0"], {}, params["blocks"]["1"]), x))
    with pytest.raises(ValueError, match=r"graph: params must be nested dicts with the paths blocks\.0, act, blocks\.1, got"):
        DOTTED({"blocks": {"0": {}}, "act": {}}, x)


def test_what_is_not_used_is_kept_and_not_evaluated():
    """A layer without inputs whose output is not used has params, but no cache and no gradients."""
    net = fn.graph("x", y=(fn.Linear(3, 2), "x"), unused=(fn.Linear(7, 7),), output="y")
    params, x = net.init(0), torch.ones(4, 3)
    y, cache = net.apply(params, x)
    assert list(cache) == ["y"]
    assert net.grads(params, cache, y)["unused"] == {"weight": None, "bias": None}
    assert net.update_stats(params, cache)["unused"] == params["unused"]
    assert eval(repr(net), vars(fn)) == net


def test_layers_used_again_train_layer_by_layer_as_all_at_once():
    """Updates in the backward pass, and gradients per example, must not use half of a sum."""
    net = fn.graph("x", f=(fn.Linear(3, 3), "x"), h=(fn.Tanh(), "f"), y=("f", "h"), unused=(fn.Linear(2, 2),), output="y")
    params, x = net.init(0), fn.random.normal(fn.key(1), (5, 3))
    opt = fn.SGD(lr=0.1, momentum=0.9)
    results = [fn.train_step(net, fn.MSE(), opt, in_backward=flag)(params, opt.init(params), x, x) for flag in (False, True)]
    assert fn.tree.equal(results[0][:2], results[1][:2])
    _, grads = fn.per_example_grads(net, fn.MSE())(params, x, x)
    whole = fn.value_and_grads(net, fn.MSE())(params, x, x)[1]
    torch.testing.assert_close(grads["f"]["weight"].mean(0), whole["f"]["weight"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fn.graph("x", y=("f", "x")), "graph: node 'y' must use the layer of one of"),
        (lambda: fn.graph("x", f=(fn.Tanh(), "x"), y=("y", "f")), "graph: node 'y' must use the layer of one of f"),
        (lambda: fn.graph("x", **{"a": (fn.Tanh(), "x"), "a.b": (fn.Tanh(), "a")}), "no node's name may be a prefix of another"),
        (lambda: fn.graph("x", **{"a..b": (fn.Tanh(), "x")}), "a name must be a non-empty str"),
        (lambda: fn.graph("x", a=(fn.Tanh(), "x"), b=("a", "x"), output="a"), "must lead to the output, got b"),
    ],
)
def test_bad_wiring_is_refused(make, message):
    """Each mistake has its message."""
    with pytest.raises(ValueError, match=message):
        make()


def test_params_may_come_in_any_order_and_stay_as_they_are():
    """The order of params may differ from the order of nodes, and moving statistics writes to no argument."""
    net = fn.graph("x", h=(fn.BatchNorm1d(3), "x"), y=(fn.Linear(3, 2), "h"))
    params, x = net.init(0), torch.randn(4, 3)
    turned = dict(reversed(params.items()))
    y, cache = net.apply(params, x)
    assert torch.equal(net(turned, x), y)
    for given in (params, turned):
        before = dict(given)
        moved = net.update_stats(given, cache)
        assert all(given[name] is before[name] for name in before)
        assert not torch.equal(moved["h"]["running_mean"], given["h"]["running_mean"])
    found, again = net.grads(params, cache, y), net.grads(turned, cache, y)
    assert fn.tree.equal(found, again)


@pytest.mark.parametrize("verb", ["vjp", "grads", "input_grad"])
@pytest.mark.parametrize("output", ["y", ("f", "y"), {"one": "f", "two": "y"}], ids=["one", "several", "named"])
def test_a_gradient_must_come(verb, output):
    """An absent gy is refused; of several outputs, at least one must have a gradient."""
    net = fn.graph("x", f=(fn.Linear(3, 3), "x"), y=(fn.Tanh(), "f"), output=output)
    params, x = net.init(0), torch.ones(2, 3)
    cache = net.apply(params, x)[1]
    gy = {str: None, tuple: (None, None), dict: {"one": None, "two": None}}[type(output)]
    with pytest.raises(ValueError, match="graph: gy must have the gradient of at least one output"):
        getattr(net, verb)(params, cache, gy)
