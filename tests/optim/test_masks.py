"""Masks: which params decay, by declarations of layers, by pattern, function or tree, and by names if there is no net."""

import pytest
import torch
from cases import CASES

import funcnet as fn
from funcnet import tree
from funcnet.combinator import Combinator

NET = fn.serial(
    fn.Embedding(7, 4),
    fn.ensemble(fn.serial(fn.Linear(4, 4), fn.LayerNorm(4)), 3),
    fn.repeat(fn.serial(fn.Linear(4, 4, bias=False), fn.RMSNorm(4)), 2),
    fn.weight_norm(fn.Linear(4, 4)),
    fn.PReLU(),
    fn.BatchNorm1d(4),
    fn.LSTM(4, 4),
)
DECAYS = {
    *("0.weight", "1.0.weight", "2.0.weight", "3.parametrizations.weight.original0", "3.parametrizations.weight.original1"),
    *("6.weight_ih_l0", "6.weight_hh_l0"),
}


def decayed(params: fn.tree.Tree, mask: object) -> set[str]:
    """Return the paths of the params that a transform with this mask decays."""
    transform, zeros = fn.AddDecayedWeights(1.0, mask), tree.map(lambda p: p * 0 if p.is_floating_point() else None, params)
    params = tree.map(torch.ones_like, params)
    new, _ = transform.update(zeros, transform.init(params), params)
    return {path for path, g in tree.names(new).items() if g.any()}


def test_by_default_a_net_decays_its_weights() -> None:
    """Biases, scales of norms with any number of axes, and running statistics do not decay."""
    params = NET.init(0)
    mask = fn.decay_mask(NET, params)
    trained = {path for path, one in tree.names(mask).items() if one and "running" not in path}
    assert trained == DECAYS
    assert tree.structure(mask) == tree.structure(params)
    assert {type(one) for one in tree.leaves(mask)} == {bool}
    grads = {path for path in decayed(params, NET) if "running" not in path}
    assert grads == DECAYS == {path for path in decayed(params, mask) if "running" not in path}


def test_what_a_layer_declares_is_among_its_params() -> None:
    """A name in ``undecayed`` that the class has no param for would have no effect."""
    declared, names = set(), set()
    for case in CASES.values():
        for _, layer in fn.walk(case.layer):
            if layer.undecayed and not isinstance(layer, Combinator):
                affine = layer.replace(affine=True) if hasattr(layer, "affine") else layer
                declared |= {(type(layer), name) for name in layer.undecayed}
                names |= {(type(layer), name) for name in affine.init(0)}
    assert declared <= names
    assert len(declared) > 10


def test_every_norm_leaves_its_scale_alone() -> None:
    """All exported norms are tried."""
    norms = [fn.BatchNorm2d(4), fn.RunningBatchNorm1d(4), fn.LayerNorm(4), fn.RMSNorm(4), fn.GroupNorm(2, 4)]
    for norm in [*norms, fn.InstanceNorm1d(4, affine=True), fn.RunningInstanceNorm2d(4, affine=True)]:
        mask = fn.decay_mask(norm, norm.init(0))
        assert mask["weight"] is mask["bias" if "bias" in mask else "weight"] is False


def test_without_a_net_names_and_shapes_decide() -> None:
    """A bias has its name, a scale has a bias or running statistics of its shape; RMSNorm cannot be recognized."""
    params = (fn.Linear(3, 4).init(0), fn.LayerNorm(4).init(0), fn.RMSNorm(4).init(0), fn.LSTM(2, 2).init(0))
    norm = {"weight": torch.ones(2, 3), "running_mean": torch.ones(2, 3), "num_batches_tracked": torch.tensor(1)}
    found = decayed((*params, norm), None)
    assert found == {"0.weight", "2.weight", "3.weight_ih_l0", "3.weight_hh_l0"}


def test_patterns_functions_and_trees_choose() -> None:
    """All three choose the same params."""
    params = {"body": fn.Linear(2, 2).init(0), "head": fn.Linear(2, 2).init(0)}
    assert decayed(params, "*") == {"body.weight", "body.bias", "head.weight", "head.bias"}
    assert decayed(params, ("head.*", "*.weight")) == {"body.weight", "head.weight", "head.bias"}
    assert decayed(params, lambda path, leaf: leaf.dim() == 1) == {"body.bias", "head.bias"}
    mask = {"body": {"weight": True, "bias": False}, "head": {"weight": False, "bias": True}}
    assert decayed(params, mask) == {"body.weight", "head.bias"}
    assert decayed(fn.Linear(2, 2).init(0), "*.bias") == {"bias"}


def test_a_function_is_called_once_for_params_of_a_kind() -> None:
    """The function is called again for other params."""
    asked: list[str] = []
    transform = fn.AddDecayedWeights(0.1, lambda path, leaf: not asked.append(path))
    for sizes in ((2, 2), (2, 2), (2, 3), (2, 2)):
        params = {"w": torch.ones(*sizes)}
        transform.update(params, transform.init(params), params)
    assert asked == ["w", "w"]


def test_masks_compare_and_hash() -> None:
    """A tree of bools compares by its leaves."""
    masks = [{"w": True, "b": False}, {"w": True, "b": True}, "*", ("*", "a"), None, fn.Linear(2, 2), (True, {})]
    values = [fn.AddDecayedWeights(0.1, mask) for mask in masks]
    assert len(set(values)) == len(values)
    assert fn.AddDecayedWeights(0.1, {"w": True, "b": False}) == values[0]
    assert eval(repr(values[0]), vars(fn)) == values[0]


@pytest.mark.parametrize("mask", [1, 0.5, {"w": 1}, ({"w": True}, "a"), 3], ids=repr)
def test_what_is_no_mask_is_refused(mask: object) -> None:
    """The error is raised when the transform is made."""
    with pytest.raises(ValueError, match="AddDecayedWeights: mask must be a tree of bools, a function"):
        fn.AddDecayedWeights(0.1, mask)


def test_a_mask_of_other_params_is_refused() -> None:
    """The message has the first path where they differ; a function must return a bool, and a net must be a layer."""
    params = {"w": torch.ones(2), "b": torch.ones(2)}
    state = fn.AddDecayedWeights(0.1).init(params)
    with pytest.raises(ValueError, match="tree") as caught:
        fn.AddDecayedWeights(0.1, {"w": True}).update(params, state, params)
    assert "params against grads and mask" in "".join(caught.value.__notes__)
    with pytest.raises(ValueError, match=r"mask must return True or False, at 'w', got 1"):
        fn.AddDecayedWeights(0.1, lambda path, leaf: 1).update(params, state, params)
    with pytest.raises(ValueError, match="decay_mask: a layer is required"):
        fn.decay_mask(fn.MSE(), params)
