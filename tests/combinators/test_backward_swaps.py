"""A backward rule is replaced in one line: guided ReLU, LRP and clipping by ``map_layers``, against values by hand."""

import copy
import pickle
import re
from typing import Any

import pytest
import torch

import funcnet as fn

NET = fn.serial(fn.Linear(2, 3), fn.ReLU(), fn.Linear(3, 1))
X = torch.tensor([[1.0, 2.0]])
PARAMS = (
    {"weight": torch.tensor([[1.0, 1.0], [2.0, -1.5], [1.0, -1.0]]), "bias": torch.zeros(3)},
    {},
    {"weight": torch.tensor([[1.0, 1.0, 5.0]]), "bias": torch.zeros(1)},
)  # before the ReLU 3, -1, -1; y = 3
EPS = 0.5


def guided(vjp: Any, x: Any, y: Any, gy: Any) -> Any:
    """Pass only positive gradients through a ReLU."""
    return vjp(gy.relu())


def relevance(vjp: Any, x: Any, y: Any, gy: Any) -> Any:
    """Divide by a sum moved away from 0 by EPS: LRP-ε, whose gradient is the relevance over the value."""
    return vjp(gy * y / torch.where(y < 0, y - EPS, y + EPS))


def clipped(vjp: Any, x: Any, y: Any, gy: Any) -> Any:
    """Clamp the gradient of a layer's output."""
    return vjp(gy.clamp(-0.5, 0.5))


def swapped(kind: type, rule: Any, net: fn.Layer = NET) -> fn.Layer:
    return fn.map_layers(lambda layer: fn.with_vjp(layer, rule) if isinstance(layer, kind) else layer, net)


def gradient(net: fn.Layer, params: Any, x: torch.Tensor, gy: torch.Tensor) -> torch.Tensor:
    """Return gx, on which both verbs must agree, after reading y."""
    y, cache = net.apply(params, x)
    assert torch.equal(y, NET(params, x))
    gparams, gx = net.vjp(params, cache, gy)
    assert fn.tree.equal(net.grads(params, cache, gy), gparams)
    assert torch.equal(net.input_grad(params, cache, gy), gx)
    return gx


def test_a_guided_relu_stops_negative_gradients():
    """All hidden units are active, with gradients 1, -1 and 5: the derivative passes the second, and the rule does not."""
    params = (
        {"weight": torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), "bias": torch.zeros(3)},
        {},
        {"weight": torch.tensor([[1.0, -1.0, 5.0]]), "bias": torch.zeros(1)},
    )
    assert gradient(NET, params, X, torch.ones(1, 1)).tolist() == [[6.0, 4.0]]
    assert gradient(swapped(fn.ReLU, guided), params, X, torch.ones(1, 1)).tolist() == [[6.0, 5.0]]


def test_lrp_gives_the_relevances_by_its_formula():
    """R = a w / (z + ε sign z) R' for each layer: values by hand, and all of y without an ε."""
    y = NET(PARAMS, X)
    got = X * gradient(swapped(fn.Linear, relevance), PARAMS, X, torch.ones(1, 1))
    hidden = 3.0 * 1.0 / (3.0 + EPS) * 3.0  # only the first unit is active
    want = [[1.0 / (3.0 + EPS) * hidden, 2.0 / (3.0 + EPS) * hidden]]
    torch.testing.assert_close(got, torch.tensor(want))
    plain = X * gradient(swapped(fn.Linear, lambda vjp, x, y, gy: vjp(gy)), PARAMS, X, torch.ones(1, 1))
    torch.testing.assert_close(plain.sum(), y.sum())


def test_clipping_everywhere():
    """Each Linear gets a gradient within ±0.5: gy = 10 becomes 0.5, so the hidden gradient is 0.5 and stays."""
    assert gradient(swapped(fn.Linear, clipped), PARAMS, X, torch.full((1, 1), 10.0)).tolist() == [[0.5, 0.5]]
    everywhere = fn.map_layers(lambda layer: layer >> fn.clip_gradient(0.5) if isinstance(layer, fn.Linear) else layer, NET)
    params = ((PARAMS[0], {}), {}, (PARAMS[2], {}))
    assert everywhere.input_grad(params, everywhere.apply(params, X)[1], torch.full((1, 1), 10.0)).tolist() == [[0.5, 0.5]]


def test_the_params_stay_what_they_are():
    """Paths and initial values are the same, and the gradients of params follow the rule too."""
    net = swapped(fn.Linear, clipped)
    assert fn.tree.equal(net.init(3), NET.init(3))
    _, cache = net.apply(PARAMS, X)
    grads = net.grads(PARAMS, cache, torch.full((1, 1), 10.0))
    assert grads[2]["bias"].tolist() == [0.5]
    assert grads[0]["weight"][0].tolist() == [0.5, 1.0]
    assert net.surrogate
    assert swapped(fn.ReLU, guided, net.inference()).surrogate


def test_it_is_a_value():
    """Layers with equal layer and rule are equal, hash and pickle; the repr has the name of the rule."""
    net = swapped(fn.ReLU, guided)
    assert net == swapped(fn.ReLU, guided) != swapped(fn.ReLU, clipped)
    assert hash(net) == hash(copy.deepcopy(net))
    assert pickle.loads(pickle.dumps(net)) == net
    assert repr(net[1]) == "with_vjp(ReLU(), guided)"


def test_sizes_are_inferred_through_it():
    """The layer inside gets its sizes."""
    net = fn.infer_sizes(fn.with_vjp(fn.Linear(None, 3), clipped), X)
    assert net.layer == fn.Linear(2, 3)


WRONG = {
    "the rule must return a pair, the gradients of params and of x, got a tensor of shape (1, 2)": lambda vjp, x, y, gy: gy,
    "the rule must return a gx with the shape and dtype of x, a tensor of shape (1, 2)": lambda vjp, x, y, gy: ({}, gy.sum(1)),
    "the rule must return a gx with the shape and dtype of x, a tensor of shape (1, 2) and dtype torch.float32, got a tensor of "
    "shape (1, 2) and dtype torch.float64": lambda vjp, x, y, gy: ({}, gy.double()),
}


@pytest.mark.parametrize("message", WRONG)
def test_a_rule_that_returns_something_else_is_refused(message):
    """The message says what it must return, for every backward verb."""
    layer = fn.with_vjp(fn.ReLU(), WRONG[message])
    _, cache = layer.apply({}, X)
    for verb in (layer.vjp, layer.input_grad):
        with pytest.raises(ValueError, match=re.escape(message)):
            verb({}, cache, X)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: fn.with_vjp(torch.relu, guided), "layer must be a layer"),
        (lambda: fn.with_vjp(fn.ReLU(), None), "rule must be a function"),
        (
            lambda: fn.with_vjp(fn.ReLU(), guided).vjp({}, fn.with_vjp(fn.ReLU(), guided).apply({}, X)[1], X[0]),
            r"with_vjp\(.*\): gy must have",
        ),
        (
            lambda: fn.with_vjp(fn.Identity(), guided).vjp({}, ((X, X), (X, X), (X, X)), (X, "no")),
            r"with_vjp\(.*\): gy must be like y, .*got 'no'",
        ),
        (
            lambda: fn.with_vjp(fn.ReLU(), guided).vjp({}, (), X),
            "cache must be what apply returned, a tuple of 3, got a tuple of 0",
        ),
        (
            lambda: fn.straight_through(fn.Sign()).vjp({}, fn.straight_through(fn.Sign()).apply({}, X)[1], X[0]),
            r"straight_through\(Sign\(\)\): gy must have",
        ),
        (lambda: fn.serial().vjp((), fn.serial().apply((), X)[1], X[0]), "serial: gy must have the shape of y"),
    ],
)
def test_what_does_not_fit_is_refused(make, words):
    """The message has the rule, and what it got."""
    with pytest.raises(ValueError, match=words):
        make()
