"""Ensembles: errors name the member, the layer, and the rule."""

from typing import Any

import pytest
import torch
from members import NETS, N, mlp
from torch import Tensor

import funcnet as fn
from funcnet import tree

ERRORS: dict[str, tuple[fn.Layer, Any, tuple[int, ...], str]] = {
    "columns": (
        mlp(fn.Tanh()),
        None,
        (6, 4),
        r"Linear\(in_features=3, .*: the last axis of x must be in_features=3, got x of shape \(6, 4\)",
    ),
    "columns of an empty batch": (fn.Linear(4, 2, bias=False), None, (0, 2), r"the last axis of x must be in_features=4"),
    "dtype": (fn.Linear(3, 2), torch.float64, (6, 3), r"x must have the dtype of the params, torch.float64, got torch.float32"),
    "mapped": (
        fn.serial(fn.Linear(3, 4), fn.BatchNorm1d(5)),
        None,
        (6, 3),
        r"BatchNorm1d\(num_features=5\): x must have the axes",
    ),
}


@pytest.mark.parametrize(("net", "dtype", "shape", "rule"), ERRORS.values(), ids=ERRORS)
def test_a_members_error_has_the_shapes_of_the_member(net: fn.Layer, dtype: Any, shape: tuple[int, ...], rule: str) -> None:
    """The message is the layer's own with a member's shapes, and a note says that it is in an ensemble."""
    many = fn.ensemble(net, N)
    params = tree.cast(many.init(0), dtype or torch.float32)
    with pytest.raises(ValueError, match=rule) as caught:
        many.apply(params, torch.ones(shape))
    assert caught.value.__notes__[-1] == "  in ensemble"


def test_an_error_deep_inside_says_where() -> None:
    """The notes go from the layer outward."""
    net = fn.serial(fn.Linear(3, 4), fn.Tanh(), fn.Linear(5, 2))
    with pytest.raises(ValueError, match="must be in_features=5") as caught:
        fn.ensemble(net, N)(fn.ensemble(net, N).init(0), torch.ones(6, 3))
    assert caught.value.__notes__ == ["  in serial, layer 2", "  in ensemble"]


@pytest.mark.parametrize("net", [fn.Linear(3, 2), mlp(fn.Tanh()), NETS["batch norm"]], ids=str)
def test_params_of_other_sizes_are_refused(net: fn.Layer) -> None:
    """Params of four members do not fit three."""
    params = fn.ensemble(net, 4).init(0)
    with pytest.raises(ValueError, match="the first axis of every tensor that is not shared must be n=3, got sizes 4"):
        fn.ensemble(net, 3).apply(params, torch.ones(6, 3))


def test_an_absent_bias_is_refused() -> None:
    """A missing bias is not treated as ``bias=False``."""
    many = fn.ensemble(fn.Linear(3, 2), N)
    params = {**many.init(0), "bias": None}
    with pytest.raises(
        ValueError, match=r"params must be a dict of weight \(2, 3\), bias \(2,\), got weight \(2, 3\), bias None"
    ):
        many(params, torch.ones(6, 3))


OTHERS: dict[str, tuple[fn.Layer, fn.Layer]] = {
    "more outputs": (fn.Linear(3, 2, bias=False), fn.Linear(3, 4, bias=False)),
    "a bias too many": (fn.Linear(3, 2, bias=False), fn.Linear(3, 2)),
}


@pytest.mark.parametrize(("net", "other"), OTHERS.values(), ids=OTHERS)
def test_params_of_another_layer_are_refused(net: fn.Layer, other: fn.Layer) -> None:
    """The message is the Linear's, with a member's shapes."""
    with pytest.raises(ValueError, match=r"params must be a dict of weight \(2, 3\), got weight"):
        fn.ensemble(net, N).apply(fn.ensemble(other, N).init(0), torch.ones(6, 3))


def test_a_bias_of_another_size_is_refused() -> None:
    """The bias is not broadcast."""
    many = fn.ensemble(fn.Linear(3, 2), N)
    params = many.init(0)
    with pytest.raises(ValueError, match="must be a dict of"):
        many.apply({**params, "bias": params["bias"][:, :1]}, torch.ones(6, 3))


@pytest.mark.parametrize("net", [fn.Tanh(), fn.Linear(3, 2)], ids=str)
def test_an_input_for_each_must_be_one_for_each(net: fn.Layer) -> None:
    """With ``shared_input=False`` the first axis of x is the members."""
    many = fn.ensemble(net, 3, shared_input=False)
    with pytest.raises(ValueError, match=r"ensemble: the first axis .* must be n=3, got sizes 6"):
        many.apply(many.init(0), torch.ones(6, 4, 3))


@pytest.mark.parametrize("loss", [fn.MSE(), fn.CrossEntropy()], ids=str)
def test_a_loss_refuses_outputs_of_other_sizes(loss: fn.Loss) -> None:
    """Outputs of four members do not fit a loss of three."""
    with pytest.raises(ValueError, match="must be n=3, got sizes 4"):
        fn.ensemble(loss, 3).value_and_grad(torch.ones(4, 6, 2), torch.ones(6, 2))


LOSS_ERRORS: dict[str, tuple[fn.Loss, Tensor, str]] = {
    "shape": (fn.MSE(), torch.ones(6, 3), r"target must have the shape of y, \(6, 2\), got shape \(6, 3\)"),
    "dtype": (fn.MSE(), torch.ones(6, 2, dtype=torch.float64), "target must have the dtype of y, torch.float32"),
    "labels": (fn.CrossEntropy(), torch.ones(5, dtype=torch.int64), r"labels must be integers of shape \(6,\)"),
    "no class": (fn.CrossEntropy(), torch.full((6,), 2), "every label must be from 0 to 1, .* got 2"),
    "no probability": (fn.BCE(), torch.full((6, 2), 2.0), "target must hold probabilities, from 0 to 1"),
}


@pytest.mark.parametrize(("loss", "target", "rule"), LOSS_ERRORS.values(), ids=LOSS_ERRORS)
def test_a_loss_says_what_is_wrong_with_a_members_target(loss: fn.Loss, target: Tensor, rule: str) -> None:
    """The message is the loss's own with a member's shapes, and a note says that it is in an ensemble."""
    with pytest.raises(ValueError, match=rule) as caught:
        fn.ensemble(loss, N).value_and_grad(torch.full((N, 6, 2), 0.5), target)
    assert caught.value.__notes__[-1] == "  in ensemble"


@pytest.mark.parametrize("n", [0, -1, 2.0, True], ids=str)
def test_the_number_of_members_is_judged(n: Any) -> None:
    """There must be at least one."""
    with pytest.raises(ValueError, match=f"n must be a whole number of at least 1, got {n!r}"):
        fn.ensemble(fn.Linear(3, 2), n)


def test_only_layers_and_losses_have_members() -> None:
    """A function is not a layer."""
    with pytest.raises(ValueError, match="layer must be a layer"):
        fn.ensemble(torch.tanh, 3)  # type: ignore[call-overload]
