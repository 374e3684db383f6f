"""The adaptive softmax compared with torch's, its probabilities, and the errors."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import funcnet as fn
from funcnet import random, tree

F64 = torch.float64


def pair(cutoffs, div_value, head_bias, seed=0):
    """Return our layer with the params of torch's module, and the module."""
    torch.manual_seed(seed)
    module = nn.AdaptiveLogSoftmaxWithLoss(16, 30, cutoffs, div_value, head_bias).double()
    layer = fn.AdaptiveLogSoftmaxWithLoss(16, 30, cutoffs, div_value, head_bias)
    return layer, tree.from_names(module.state_dict(), tree.cast(layer.init(0), F64)), module


@settings(deadline=None, max_examples=30)
@given(
    cutoffs=st.sampled_from([(5,), (3, 10), (1, 2, 29)]),
    div_value=st.sampled_from([1.0, 2.0, 2.5]),
    head_bias=st.booleans(),
    rows=st.sampled_from([(), (1,), (9,)]),
    seed=st.integers(0, 999),
)
def test_it_is_torchs(cutoffs, div_value, head_bias, rows, seed):
    """Output, loss, gradients, log-probabilities and predictions agree, for labels of all clusters or of some."""
    layer, params, module = pair(cutoffs, div_value, head_bias, seed)
    h = random.normal(seed, (*rows, 16), dtype=F64).requires_grad_()
    t = random.randint(seed, rows, 0, 30)
    want, (output, value) = module(h, t), layer(params, (h.detach(), t))
    torch.testing.assert_close((output, value), (want.output.detach(), want.loss.detach()), rtol=1e-10, atol=1e-12)
    gy = random.normal(1, rows, dtype=F64), random.normal(2, (), dtype=F64)
    gradients = torch.autograd.grad(
        [want.output, want.loss], [h, *module.parameters()], gy, materialize_grads=True, allow_unused=True
    )
    gparams, (gh, gt) = layer.vjp(params, layer.apply(params, (h.detach(), t))[1], gy)
    torch.testing.assert_close(gh, gradients[0], rtol=1e-10, atol=1e-12)
    assert gt is None
    names = [name for name, _ in module.named_parameters()]
    want_names = dict(zip(names, gradients[1:], strict=True))
    torch.testing.assert_close(tree.names(gparams), want_names, rtol=1e-10, atol=1e-12)
    if rows:  # torch's methods need a batch
        torch.testing.assert_close(layer.log_prob(params, h.detach()), module.log_prob(h).detach(), rtol=1e-10, atol=1e-12)
        assert torch.equal(layer.predict(params, h), module.predict(h))


def test_probabilities_add_up_to_one():
    """The sum is over all classes; ``apply`` gives the probabilities of the labels."""
    layer = fn.AdaptiveLogSoftmaxWithLoss(8, 20, (4, 9), 2.0)
    params, h = layer.init(0), random.normal(1, (5, 8))
    logp = layer.log_prob(params, h)
    torch.testing.assert_close(logp.exp().sum(-1), torch.ones(5))
    for t in (torch.arange(5), torch.arange(15, 20)):
        output, value = layer(params, (h, t))
        torch.testing.assert_close(output, logp.gather(1, t[:, None]).squeeze(1))
        torch.testing.assert_close(value, -output.mean())


def test_the_prediction_is_the_likeliest_class():
    """Eager mode and ``vmap`` are tried, for rows of the shortlist, of a cluster, and of both."""
    layer = fn.AdaptiveLogSoftmaxWithLoss(8, 12, (4, 6), 2.0)
    params, h = tree.scale(layer.init(0), 5.0), random.normal(1, (40, 8))
    want = layer.log_prob(params, h).argmax(-1)
    assert (want < 4).any()
    assert (want >= 6).any()
    assert torch.equal(layer.predict(params, h), want)
    assert torch.equal(torch.func.vmap(lambda h: layer.predict(params, h))(h), want)
    for rows in (want < 4, want >= 4):
        assert torch.equal(layer.predict(params, h[rows]), want[rows])


def test_rare_classes_are_computed_for_their_rows_only(monkeypatch: pytest.MonkeyPatch):
    """A cluster without labels has the gradient 0; each softmax gets only the rows with its labels."""
    from funcnet.layers.linear import adaptive_softmax

    seen, plain = [], adaptive_softmax.log_softmax
    monkeypatch.setattr(adaptive_softmax, "log_softmax", lambda z, dim: (seen.append(tuple(z.shape)), plain(z, dim))[1])
    layer = fn.AdaptiveLogSoftmaxWithLoss(8, 20, (4, 9), 2.0)
    params = layer.init(0)
    _, cache = layer.apply(params, (random.normal(1, (5, 8)), torch.tensor([0, 12, 3, 19, 1])))
    assert seen == [(5, 6), (0, 5), (2, 11)]
    gparams = layer.grads(params, cache, (None, torch.ones(())))
    assert not gparams["tail"]["0"]["1"]["weight"].any()
    assert gparams["tail"]["1"]["1"]["weight"].any()


def test_four_lines_train_it():
    """The value is a part of y: its gradient is 1, and the gradient of the output is absent."""
    net = fn.serial(fn.parallel(fn.Linear(4, 8), fn.Identity()), fn.AdaptiveLogSoftmaxWithLoss(8, 20, (4, 9), 2.0))
    x = random.normal(1, (32, 4)), torch.arange(32) % 20
    params, opt, values = net.init(0), fn.Adam(lr=0.05), []
    state = opt.init(params)
    for _ in range(60):
        (_, value), cache = net.apply(params, x)
        values.append(float(value))
        params, state = opt.update(net.grads(params, cache, (None, torch.ones(()))), state, params)
    assert values[-1] < 0.5 * values[0]


def test_torchs_initial_weights_have_its_bounds():
    """The bounds are ±1/√(features), for the head and its bias, and for both weights of a cluster."""
    layer = fn.AdaptiveLogSoftmaxWithLoss(16, 400, (100,), 4.0, True, "torch")
    for name, leaf in tree.names(layer.init(0)).items():
        features = 16 if name != "tail.0.1.weight" else 4
        assert 0.8 * features**-0.5 < leaf.abs().max() <= features**-0.5, name


LAYER = fn.AdaptiveLogSoftmaxWithLoss(16, 20, (4, 9))
PARAMS, H, T = LAYER.init(0), torch.zeros(3, 16), torch.tensor([0, 5, 19])
MESSAGES = {
    "AdaptiveLogSoftmaxWithLoss: cutoffs must be increasing, from 1 to 19, got (9, 4)": lambda: fn.AdaptiveLogSoftmaxWithLoss(16, 20, (9, 4)),
    "AdaptiveLogSoftmaxWithLoss: cutoffs must be increasing, from 1 to 19, got (4, 20)": lambda: fn.AdaptiveLogSoftmaxWithLoss(16, 20, [4, 20]),
    "AdaptiveLogSoftmaxWithLoss: cutoffs must be a whole number of at least 1": lambda: fn.AdaptiveLogSoftmaxWithLoss(16, 20, ()),
    "AdaptiveLogSoftmaxWithLoss: in_features=16 must leave each cluster a feature after division by div_value, got div_value=8.0": lambda: fn.AdaptiveLogSoftmaxWithLoss(16, 20, (4, 9), 8.0),
    "x must be (h, labels): (..., in_features=16), floating, and integers (...), got x of shape (3, 16)": lambda: LAYER(PARAMS, H),
    "x must be (h, labels): (..., in_features=16), floating, and integers (...), got shapes (3, 16) and (2,)": lambda: LAYER(PARAMS, (H, T[:2])),
    "x must be (h, labels): (..., in_features=16), floating, and integers (...), got shapes (3, 16) and (3,)": lambda: LAYER(PARAMS, (H, T.float())),
    "every label must be from 0 to 19, got 0 to 20": lambda: LAYER(PARAMS, (H, torch.tensor([0, 5, 20]))),
    "every label must be from 0 to 19, got -1 to 5": lambda: LAYER(PARAMS, (H, torch.tensor([0, 5, -1]))),
    "params must be a dict of head.weight (6, 16), tail.0.0.weight (4, 16)": lambda: LAYER({"head": PARAMS["head"]}, (H, T)),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_bad_input_is_refused_with_its_message(message):
    """The message names the layer, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert message in str(caught.value)
