"""Plans with unchecked arguments: order of keys, leaves that a verb does not read, layers within combinators, memory."""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import funcnet as fn
from funcnet.combinators.sequential import Serial
from funcnet.contract import Cache, Params, Rng
from funcnet.kernels.tracing import is_eager
from funcnet.plans import Plans
from funcnet.stand_ins import StandIn, stand_in_for

X = fn.random.normal(1, (6, 4))
GY = fn.random.normal(2, (6, 3))
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


@pytest.fixture
def planning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every call without a plan create one."""
    monkeypatch.setattr(Plans, "is_due", lambda self: is_eager())


def keys(tree: Any) -> Any:
    """List the keys of all dicts in a tree of tuples, in order."""
    return [*tree] if isinstance(tree, dict) else [keys(one) for one in tree]


def said(f: Callable[[], Any]) -> Any:
    """Return the message of the error that a call raises, or the numbers of its result."""
    try:
        result = f()
    except Exception as error:
        return type(error), str(error), getattr(error, "__notes__", [])
    return [leaf.tolist() if isinstance(leaf, Tensor) else leaf for leaf in fn.tree.leaves(result)]


def without_plans(net: Serial) -> Serial:
    """Return an equal net without plans."""
    return net.replace()


@pytest.mark.usefixtures("planning")
def test_gradients_have_the_keys_of_params_in_their_order():
    """The keys of a norm's gradient follow params, whatever their order when the plan was made."""
    net = fn.serial(fn.Linear(4, 3), fn.BatchNorm1d(3))
    params, both = net.init(0), fn.value_and_grads(net, fn.MSE())
    turned = (params[0], {name: params[1][name] for name in reversed(NORM)})
    for p, order in ((params, NORM), (turned, NORM[::-1])) * 2:
        cache = net.apply(p, X)[1]
        found = net.vjp(p, cache, GY)[0], net.grads(p, cache, GY), both(p, X, GY)[1]
        assert [keys(one) for one in found] == [[["weight", "bias"], [*order]]] * 3


@pytest.mark.usefixtures("planning")
def test_a_leaf_that_no_layer_has_gets_no_gradient():
    """``grads`` of a norm does not count its params: an extra leaf has the gradient ``None`` in each call."""
    net = fn.serial(fn.BatchNorm1d(4), fn.Linear(4, 3))
    params = net.init(0)
    cache, more = net.apply(params, X)[1], ({**params[0], "other": X}, params[1])
    assert [net.grads(more, cache, GY)[0]["other"] for _ in range(4)] == [None] * 4


ODD_WEIGHTS: dict[str, Any] = {
    "a number": 1.0,
    "a list": [X],
    "a scalar": torch.tensor(1.0),
    "wider": torch.ones(3, 5),
    "another dtype": torch.ones(3, 4).double(),
    "none": None,
}


@pytest.mark.usefixtures("planning")
@pytest.mark.parametrize("weight", ODD_WEIGHTS.values(), ids=ODD_WEIGHTS.keys())
def test_grads_and_vjp_judge_a_weight_as_without_plans(weight: Any):
    """``grads`` does not read the first layer's weight, so any will do; ``vjp`` reads it, and refuses a misfit."""
    net = fn.serial(fn.Linear(4, 3))
    params = net.init(0)
    cache, odd = net.apply(params, X)[1], ({**params[0], "weight": weight},)
    for verb in ("grads", "vjp", "grads", "vjp"):
        expected = said(lambda verb=verb: getattr(without_plans(net), verb)(odd, cache, GY))
        assert said(lambda verb=verb: getattr(net, verb)(odd, cache, GY)) == expected


@pytest.mark.usefixtures("planning")
def test_grads_of_entries_in_another_order_as_without_plans():
    """No verb raises an error of a plan that it tries to make."""
    net = fn.serial(fn.ELU(), fn.Linear(4, 3))
    params = net.init(0)
    cache = net.apply(params, X)[1]
    expected = said(lambda: without_plans(net).grads(params[::-1], cache, GY))
    assert [said(lambda: net.grads(params[::-1], cache, GY)) for _ in range(3)] == [expected] * 3


class Noting(StandIn):
    """A layer that records the calls of ``apply``."""

    notes: list[str]

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        self.notes.append("apply")
        return self.original.apply(params, x, rng)


@pytest.mark.usefixtures("planning")
def test_a_layer_that_replaces_the_sum_of_a_residual_is_called():
    """The layer has the same repr as the sum, but overrides its verbs."""
    notes: list[str] = []
    one = fn.residual(fn.Linear(4, 4))
    net = fn.serial(one.replace(merge=stand_in_for(one.merge, Noting, notes=notes)), fn.Linear(4, 3))
    params, both = net.init(0), fn.value_and_grads(net, fn.MSE())
    for _ in range(4):
        both(params, X, GY)
    assert len(notes) == 4


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("before", range(4))
def test_a_trace_finds_the_same_calls_twice(before: int):
    """``torch.jit.trace`` compares two calls, neither of which makes a plan."""
    net = fn.serial(fn.Linear(4, 3), fn.Tanh())
    params = net.init(0)
    for _ in range(before):
        net.apply(params, X)
    traced = torch.jit.trace(lambda x: net.apply(params, x)[0], (X,))
    assert torch.equal(traced(2 * X), net(params, 2 * X))


@pytest.mark.usefixtures("planning")
def test_plans_keep_no_tensor_alive():
    """Nothing of a batch, params, caches or gradients stays alive when the caller has released it."""
    net = fn.serial(fn.Linear(4, 3), fn.BatchNorm1d(3), fn.residual(fn.Linear(3, 3)), fn.Softsign())
    step = fn.train_step(net, fn.CrossEntropy(), fn.Adam(0.1))

    def train() -> list[Any]:
        params, x, labels = net.init(0), X.clone(), torch.arange(6) % 3
        state, seen = step.opt.init(params), []
        for _ in range(5):
            y, cache = net.apply(params, x)
            grads = net.grads(params, cache, GY), net.vjp(params, cache, GY)
            seen += fn.tree.leaves((params, state, x, labels, y, cache, grads))
            params, state, _ = step(params, state, x, labels)
        return [weakref.ref(leaf) for leaf in seen if isinstance(leaf, Tensor) and leaf.numel() and leaf is not GY]

    seen = train()
    gc.collect()
    assert step.gradient._plans.known
    assert len(seen) > 100
    assert [ref() for ref in seen if ref() is not None] == []


@pytest.mark.usefixtures("planning")
def test_a_serial_with_names_has_plans():
    """With a plan, its params and gradients are dicts in the order of names, with the same numbers and errors."""
    net = fn.serial(first=fn.Linear(4, 3), norm=fn.BatchNorm1d(3), inner=fn.serial(act=fn.Tanh(), last=fn.Linear(3, 3)))
    params, both = net.init(0), fn.value_and_grads(net, fn.MSE())
    cache = net.apply(params, X)[1]
    turned = dict(reversed(params.items()))
    verbs: dict[str, Callable[[Any, Any], Any]] = {
        "apply": lambda one, p: one.apply(p, X),
        "vjp": lambda one, p: one.vjp(p, cache, GY),
        "grads": lambda one, p: one.grads(p, cache, GY),
        "value_and_grads": lambda one, p: (both if one is net else fn.value_and_grads(one, fn.MSE()))(p, X, GY),
    }
    for p in (params, turned, {**params, "more": {}}, {"first": params["first"]}, {**params, "first": params["norm"]}) * 2:
        for verb in verbs.values():
            expected = said(lambda verb=verb, p=p: verb(without_plans(net), p))
            assert [said(lambda verb=verb, p=p: verb(net, p)) for _ in range(3)] == [expected] * 3
    found = (net.vjp(turned, cache, GY)[0], net.grads(turned, cache, GY), both(turned, X, GY)[1])
    assert [[*one] for one in found] == [["first", "norm", "inner"]] * 3
    assert all(one.known for one in (net._forward, net._backward, net._half, both._plans))
