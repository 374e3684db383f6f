"""clipped_grads compared with the gradients of each row, clipped and summed."""

from typing import Any

import pytest
import torch
from test_per_example import LABELS, NETS
from torch import Tensor

import funcnet as fn
from funcnet import tree


def by_rows(
    net: fn.Layer, loss: fn.Loss, params: Any, x: Any, target: Any, max_norm: float, rng: Any = None
) -> tuple[Tensor, Any]:
    """Clip the gradient of each row by itself, and sum them."""
    total, values = tree.zeros_like(params), []
    for i in range(len(target)):
        key = None if rng is None else fn.fold_in(rng, i)
        value, grads, _ = fn.value_and_grads(net, loss)(params, x[i : i + 1], target[i : i + 1], key)
        total = tree.add(total, tree.scale(grads, min(1.0, max_norm / (float(tree.norm(grads)) or 1.0))))
        values.append(value)
    return torch.stack(values), total


@pytest.mark.parametrize("name", NETS)
def test_gradients_are_clipped_row_by_row(name: str) -> None:
    """Nets of all kinds are tried, with a norm that clips some of the rows."""
    net, x = NETS[name]
    x = x.double() if x.is_floating_point() else x
    params = tree.cast(net.init(0), torch.float64)
    loss = fn.CrossEntropy()
    norms = fn.per_example_norms(net, loss)(params, x, LABELS, 5)[1]
    middle = float(norms.median()) or 1.0
    values, total = by_rows(net, loss, params, x, LABELS, middle, 5)
    got = fn.clipped_grads(net, loss, middle)(params, x, LABELS, 5)
    want = (values, tree.scale(total, 1 / len(LABELS)))
    torch.testing.assert_close(tree.leaves(got), tree.leaves(want), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("reduction", ["mean", "sum", "batch"])
def test_the_loss_is_that_of_a_row(reduction: str) -> None:
    """The reduction has no effect, and targets in other rows may be ignored."""
    net, x = fn.Linear(3, 2), fn.random.normal(1, (5, 3))
    target, params = fn.random.normal(2, (5, 2)), net.init(0)
    loss = fn.MSE(reduction=reduction)
    values, total = by_rows(net, loss, params, x, target, 0.5)
    got = fn.clipped_grads(net, loss, 0.5, batch_size=10.0)(params, x, target)
    torch.testing.assert_close(got, (values, tree.scale(total, 0.1)), rtol=1e-5, atol=1e-6)


def test_a_stochastic_net_has_a_key_for_each_row() -> None:
    """Row i gets ``fold_in(rng, i)``, as in ``per_example_grads``."""
    net, x, target = fn.serial(fn.Linear(3, 8), fn.Dropout(0.5), fn.Linear(8, 2)), fn.random.normal(1, (5, 3)), torch.zeros(5, 2)
    params = net.init(0)
    values, total = by_rows(net, fn.MSE(), params, x, target, 0.2, fn.key(7))
    got = fn.clipped_grads(net, fn.MSE(), 0.2)(params, x, target, 7)
    torch.testing.assert_close(tree.leaves(got), tree.leaves((values, tree.scale(total, 0.2))), rtol=1e-4, atol=1e-6)


def test_no_rows_have_no_gradient() -> None:
    """A batch drawn at random may be empty."""
    net = fn.Linear(3, 2)
    values, grads = fn.clipped_grads(net, fn.MSE(), 1.0)(net.init(0), torch.zeros(0, 3), torch.zeros(0, 2))
    assert values.shape == (0,)
    assert tree.equal(grads, tree.zeros_like(net.init(0)))


def test_frozen_params_have_none() -> None:
    """Frozen params count in no norm; a gradient of 0 stays 0."""
    net = fn.serial(fn.freeze(fn.Linear(3, 3)), fn.Linear(3, 2))
    params, x = net.init(0), fn.random.normal(1, (4, 3))
    _, grads = fn.clipped_grads(net, fn.MSE(), 1.0)(params, x, net(params, x))
    assert tree.leaves(grads[0]) == []
    assert tree.equal(grads[1], tree.zeros_like(params[1]))


def test_one_row_moves_the_gradient_by_the_norm_at_most() -> None:
    """The gradient of the row may be arbitrarily large; the analysis of privacy needs the bound."""
    net, x, target = fn.Linear(3, 2), fn.random.normal(1, (4, 3)), torch.zeros(4, 2)
    clipped, params = fn.clipped_grads(net, fn.MSE(), 0.5, batch_size=4.0), net.init(0)
    base = clipped(params, x, target)[1]
    other = clipped(params, torch.cat([x[:3], 1e6 * x[3:]]), target)[1]
    alone = clipped(params, x[:3], target[:3])[1]
    assert float(tree.norm(tree.sub(other, alone))) <= 0.5 / 4 + 1e-6
    assert float(tree.norm(tree.sub(base, other))) <= 2 * 0.5 / 4 + 1e-6


def test_it_is_a_value_and_refuses_bad_arguments() -> None:
    """Refused are a norm of 0, a batch size of 0, and nets whose rows depend on each other."""
    made = fn.clipped_grads(fn.Linear(2, 2), fn.MSE(), 1.0, 3)
    assert eval(repr(made), vars(fn)) == made
    for how, message in (({"max_norm": 0.0}, "max_norm"), ({"max_norm": 1.0, "batch_size": 0}, "batch_size")):
        with pytest.raises(ValueError, match=f"clipped_grads: {message} must be a finite number above 0"):
            fn.clipped_grads(fn.Linear(2, 2), fn.MSE(), **how)
    with pytest.raises(ValueError, match="must not depend on other rows"):
        fn.clipped_grads(fn.BatchNorm1d(2), fn.MSE(), 1.0)


@pytest.mark.compiled
def test_private_steps_compile_whole() -> None:
    """Clipped gradients, noise and the step are one graph."""
    net, x, target = fn.mlp([3, 4, 2]), fn.random.normal(1, (5, 3)), torch.zeros(5, 2)
    opt, clipped = fn.chain(fn.AddPrivacyNoise(1.0, 0.5, 5), fn.SGD(0.1)), fn.clipped_grads(net, fn.MSE(), 0.5)

    def step(params: Any, state: Any) -> Any:
        return opt.update(clipped(params, x, target)[1], state, params)

    torch._dynamo.reset()
    params = net.init(0)
    got = torch.compile(step, fullgraph=True, backend="aot_eager")(params, opt.init(params))
    torch.testing.assert_close(tree.leaves(got), tree.leaves(step(params, opt.init(params))), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("loss", [fn.NTXent(), fn.NTXent() + fn.MSE()], ids=str)
@pytest.mark.parametrize("make", [fn.per_example_grads, fn.per_example_norms, lambda *x: fn.clipped_grads(*x, 1.0)])
def test_a_loss_over_other_rows_is_refused(make: Any, loss: fn.Loss) -> None:
    """By itself a row would have no pair, and no gradient."""
    with pytest.raises(
        ValueError, match=r"a term of the loss must not depend on other rows, .*got a loss that is batch_dependent"
    ):
        make(fn.Linear(3, 2), loss)
