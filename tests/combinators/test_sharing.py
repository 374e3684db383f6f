"""Sharing: compared with autograd with one tensor in several places, in training, and the error messages."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from twins import draw

import funcnet as fn
from funcnet import tree

NET = fn.tied(fn.serial(fn.Embedding(5, 3), fn.Tanh(), fn.Linear(3, 5)), ("0.weight", "2.weight"))


def test_a_tied_weight_has_the_gradients_of_both_places():
    """Autograd sums them too for one tensor used twice."""
    params, x, gy = tree.cast(NET.init(0), torch.float64), torch.tensor([[4, 0], [4, 1]]), draw((2, 2, 5))
    y, cache = NET.apply(params, x)
    w, b = params[0]["weight"].clone().requires_grad_(), params[2]["bias"].clone().requires_grad_()
    want = functional.linear(functional.embedding(x, w).tanh(), w, b)
    gw, gb = torch.autograd.grad(want, (w, b), gy)
    torch.testing.assert_close(y, want.detach())
    torch.testing.assert_close(NET.vjp(params, cache, gy)[0], ({"weight": gw}, {}, {"weight": None, "bias": gb}))


def test_a_tied_net_holds_its_weight_once():
    """Only the first place has it."""
    params = NET.init(0)
    assert {*tree.names(params)} == {"0.weight", "2.bias"}
    assert tree.equal(params[0], NET.layer.init(0)[0])


@pytest.mark.parametrize("opt", [fn.SGD(lr=0.1, momentum=0.9), fn.Adam(lr=0.1)], ids=repr)
def test_a_tied_net_trains_as_torchs_does(opt):
    """Ten steps of an optimizer agree with a torch.nn model whose two layers share one Parameter."""
    embed, head = nn.Embedding(5, 3, dtype=torch.float64), nn.Linear(3, 5, dtype=torch.float64)
    params = tree.cast(NET.init(0), torch.float64)
    embed.weight.data, head.bias.data = params[0]["weight"].clone(), params[2]["bias"].clone()
    head.weight = embed.weight
    weights = [embed.weight, head.bias]
    rates = {"lr": 0.1, "momentum": 0.9} if isinstance(opt, fn.SGD) else {"lr": 0.1}
    torchs = getattr(torch.optim, type(opt).__name__)(weights, **rates)
    x, labels, state = torch.tensor([0, 1, 2, 3]), torch.tensor([1, 2, 3, 4]), opt.init(params)
    for _ in range(10):
        torchs.zero_grad()
        functional.cross_entropy(head(embed(x).tanh()), labels).backward()
        torchs.step()
        y, cache = NET.apply(params, x)
        grads = NET.grads(params, cache, fn.CrossEntropy().value_and_grad(y, labels)[1])
        params, state = opt.update(grads, state, params)
    torch.testing.assert_close(params[0]["weight"], embed.weight.detach(), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(params[2]["bias"], head.bias.detach(), rtol=1e-8, atol=1e-8)


def test_a_state_dict_with_both_names_of_a_tied_weight_is_taken():
    """torch.nn saves both; if they differ, or a name leads nowhere, it is refused."""
    net = fn.tied(fn.serial(fn.Embedding(5, 3), fn.Linear(3, 5, bias=False)), ("0.weight", "1.weight"))
    twin = torch.nn.Sequential(torch.nn.Embedding(5, 3), torch.nn.Linear(3, 5, bias=False))
    twin[1].weight = twin[0].weight
    params = fn.tree.from_names(twin.state_dict(), like=net.init(0))
    assert params[1]["weight"] is None
    x = torch.tensor([0, 4])
    torch.testing.assert_close(net(params, x), twin(x).detach())
    for wrong in ({"1.weight": torch.ones(5, 3)}, {"1.bias": twin[0].weight}):
        with pytest.raises(ValueError, match=r"from_names: the names must be the same as in like, got missing \[\] and unknown"):
            fn.tree.from_names({**twin.state_dict(), **wrong}, like=net.init(0))


def test_a_shared_layer_is_the_layer_on_each_entry():
    """There may be any number of entries, each with its own key if the layer takes one."""
    layer, xs = fn.shared(fn.Linear(3, 2)), tuple(draw((2, 3), i).float() for i in range(3))
    params = layer.init(0)
    assert tree.equal(params, fn.Linear(3, 2).init(0))
    assert tree.equal(layer(params, xs), tuple(fn.Linear(3, 2)(params, x) for x in xs))
    one, other = fn.shared(fn.Dropout())({}, (torch.ones(64), torch.ones(64)), 1)
    assert not torch.equal(one, other)


def test_a_shared_norm_s_statistics_see_every_entry():
    """The statistics move once for each entry, in order."""
    norm, xs = fn.BatchNorm1d(3), (draw((4, 3), 1).float(), draw((4, 3), 2).float() + 5)
    params = norm.init(0)
    want = params
    for x in xs:
        want = norm.update_stats(want, norm.apply(params, x)[1])
    got = fn.shared(norm).update_stats(params, fn.shared(norm).apply(params, xs)[1])
    assert tree.equal(got, want)
    assert fn.shared(norm).inference() == fn.shared(norm.inference())


def test_tied_norms_of_which_one_moves():
    """The first place's statistics are moved by its own layer only."""
    net = fn.tied(fn.serial(fn.Linear(3, 3), fn.Linear(3, 3), fn.BatchNorm1d(3)), ("0", "1"))
    params, x = net.init(0), draw((4, 3)).float()
    moved = net.update_stats(params, net.apply(params, x)[1])
    assert tree.structure(moved) == tree.structure(params)
    assert int(moved[2]["num_batches_tracked"]) == 1
    assert net.inference().layer[2] == fn.BatchNorm1d(3).inference()


X, PLAIN = torch.ones(2, 3), fn.serial(fn.Linear(3, 3), fn.Linear(3, 2))
MESSAGES = {
    "shared: x must be a tuple of at least one, each an input of the layer, got a tensor of shape (2, 3)": lambda: fn.shared(fn.Tanh())({}, X),
    "shared: x must be a tuple of at least one, each an input of the layer, got a tuple of 0": lambda: fn.shared(fn.Tanh())({}, ()),
    "tied: each group must be a tuple of at least two paths, got ('0',)": lambda: fn.tied(PLAIN, ("0",)),
    "tied: each group must be a tuple of at least two paths, got '0.weight'": lambda: fn.tied(PLAIN, "0.weight"),
    "tied: each path must be one of 0.weight, 0.bias, 1.weight, 1.bias, or a prefix of them, got '2.weight'": lambda: fn.tied(PLAIN, ("0.weight", "2.weight")).init(0),
    "tied: each path must be one of 0.weight, 0.bias, 1.weight, 1.bias, or a prefix of them, got 'a'": lambda: fn.tied(PLAIN, ("a", "1")).init(0),
    "tied: 1.weight must have the same shapes as 0.weight, (3, 3), got (2, 3)": lambda: fn.tied(PLAIN, ("0.weight", "1.weight")).init(0),
    "tied: params must have nothing at 2.weight, got a tensor of shape (5, 3)": lambda: NET(NET.layer.init(0), torch.tensor([1])),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_wrong_sharing_is_refused_with_its_message(message):
    """The message names the layer, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert message in str(caught.value)


def test_an_error_says_in_which_entry_it_happened():
    """A note names it."""
    with pytest.raises(ValueError, match="in_features=3") as caught:
        fn.shared(fn.Linear(3, 2))(fn.Linear(3, 2).init(0), (X, X[:, :2]))
    assert caught.value.__notes__ == ["  in shared, entry 1"]
