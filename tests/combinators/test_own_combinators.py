"""A custom combinator with a leaf beside its layers' params: the features that it inherits from the base class."""

from typing import Any

import pytest
import torch
from torch import Tensor

import funcnet as fn
from funcnet import tree
from funcnet.combinator import child_key

X = fn.random.normal(0, (5, 3))
BLOCK = fn.serial(fn.Linear(3, 3), fn.BatchNorm1d(3))


@fn.frozen
class Gated(fn.Combinator):
    """y = g f(x), with a factor g for each column."""

    layer: fn.Layer
    size: int

    def children(self) -> dict[str, fn.Layer]:
        return {"layer": self.layer}

    def with_children(self, children: dict[str, fn.Layer]) -> "Gated":
        return self.replace(layer=children["layer"])

    def init(self, rng: Any) -> Any:
        return {"gate": torch.full((self.size,), 0.5), **super().init(rng)}

    def apply(self, params: Any, x: Tensor, rng: Any = None) -> Any:
        y, cache = self.layer.apply(params["layer"], x, child_key(self.layer, rng, 0))
        return params["gate"] * y, {"layer": cache, "y": y}

    def vjp(self, params: Any, cache: Any, gy: Tensor) -> Any:
        gparams, gx = self.layer.vjp(params["layer"], cache["layer"], params["gate"] * gy)
        return {"gate": (gy * cache["y"]).sum_to_size(self.size), "layer": gparams}, gx


def moved(net: fn.Layer) -> Any:
    """Return params with the running statistics of X."""
    params = net.init(0)
    return net.update_stats(params, net.apply(params, X, 3)[1])


@pytest.mark.compiled
@pytest.mark.parametrize(
    "layer", [fn.Tanh(), BLOCK, fn.serial(fn.Linear(3, 3), fn.Dropout(0.5))], ids=["plain", "normed", "noisy"]
)
def test_it_keeps_every_law(layer: fn.Layer) -> None:
    """The laws include reach: keys, statistics and inference get to the layer within."""
    assert fn.testing.check_laws(Gated(layer, 3), X) is None


def test_its_statistics_move_and_its_own_leaves_stay() -> None:
    """The order of leaves stays."""
    net = Gated(BLOCK, 3)
    params, after = net.init(0), moved(net)
    assert [*after] == [*params]
    assert torch.equal(after["gate"], params["gate"])
    assert not torch.equal(after["layer"][1]["running_mean"], params["layer"][1]["running_mean"])


@pytest.mark.parametrize(
    "net",
    [Gated(BLOCK, 3), fn.serial(Gated(BLOCK, 3), fn.Tanh()), Gated(Gated(BLOCK, 3), 3)],
    ids=["alone", "in serial", "twice"],
)
def test_norms_within_it_are_folded(net: fn.Layer) -> None:
    """The factors do not change."""
    params = moved(net)
    folded, folded_params = fn.fold_batch_norm(net, params)
    assert not any(isinstance(layer, fn.BatchNorm1d) for _, layer in fn.walk(folded))
    assert tree.structure(folded_params) == tree.structure(folded.init(0))
    torch.testing.assert_close(folded(folded_params, X), net.inference()(params, X))


def test_params_without_the_layers_are_refused() -> None:
    """The message has only the missing layers."""
    with pytest.raises(ValueError, match=r"^Gated: params must be a dict with the keys layer, got a dict with the keys 'gate'"):
        fn.fold_batch_norm(Gated(BLOCK, 3), {"gate": torch.ones(3)})


def test_its_layers_are_found_and_sized() -> None:
    """Layers are found by the paths of their params."""
    net = fn.serial(fn.Tanh(), Gated(fn.serial(fn.Linear(None, 3), fn.BatchNorm1d(None)), 3))
    sized = fn.infer_sizes(net, X)
    assert fn.at(sized, "1.layer.0") == fn.Linear(3, 3)
    assert fn.at(fn.replace(sized, "1.layer", fn.Tanh()), "1") == Gated(fn.Tanh(), 3)
    assert {"1.layer.0.weight", "1.gate"} < {*tree.names(sized.init(0))}


def test_each_step_of_a_scan_of_it_draws_anew() -> None:
    """The dropout within gets the key of its step, and none is used twice."""
    cell = fn.serial(fn.Add(), Gated(fn.Dropout(0.5), 4), fn.branch(fn.Identity(), fn.Identity()))
    net = fn.scan(cell)
    xs, carry = torch.ones(6, 2, 4), torch.zeros(2, 4)
    params = net.init(0)
    steps = net(params, (xs, carry), 7)[0] != 0
    assert len({tuple(one.flatten().tolist()) for one in steps}) > 1
    assert torch.equal(net(params, (xs, carry), 7)[0], net(params, (xs, carry), 7)[0])
    assert fn.testing.check_laws(net, (fn.random.normal(0, (3, 2, 4)), carry), compiled=False) is None


@pytest.mark.parametrize(
    "wrap",
    [
        lambda net: fn.serial(fn.branch(fn.Identity(), fn.Identity()), fn.shared(net)),
        lambda net: fn.serial(fn.branch(fn.Identity(), fn.Identity()), fn.parallel(net, fn.Tanh())),
    ],
    ids=["shared", "parallel"],
)
def test_folding_and_sizes_go_through_layers_around_it(wrap: Any) -> None:
    """Several places may share one copy of the params, or each have its own."""
    net = wrap(Gated(BLOCK, 3))
    params = moved(net)
    folded, folded_params = fn.fold_batch_norm(net, params)
    torch.testing.assert_close(folded(folded_params, X), net.inference()(params, X))
    unsized = wrap(Gated(fn.serial(fn.Linear(None, 3), fn.BatchNorm1d(None)), 3))
    assert fn.infer_sizes(unsized, X) == net
