"""Sizes beyond any memory give an error at once, in ``init`` or before, instead of an allocator's message or hours of work."""

import pytest
import torch

import funcnet as fn
from funcnet import explanations

HUGE, WIDE = (1 << 31) - 1, 1 << 24  # the largest allowed size
LAYERS = [
    *[
        fn.Linear(HUGE, 4096),
        fn.Linear(4096, HUGE),
        fn.Embedding(HUGE, 4096),
        fn.LSTM(HUGE, 4096),
        fn.LSTM(4, WIDE),
        fn.Conv2d(WIDE, WIDE, 3),
    ],
    *[fn.LayerNorm((WIDE, WIDE)), fn.Bias((WIDE, WIDE)), fn.MultiHeadAttention(WIDE, 1)],
    *[fn.serial(fn.Tanh(), fn.Linear(HUGE, 4096)), fn.weight_norm(fn.Linear(HUGE, 4096)), fn.mlp([HUGE, 4096])],
]


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_params_that_no_memory_holds_are_refused(layer: fn.Layer) -> None:
    """The error names the params and their size; on the meta device they can be made."""
    with pytest.raises(ValueError, match=r"^\w+\(.*\): params must fit in memory, got [\d.]+ GiB of \w+ \(.*\)"):
        layer.init(0)
    assert fn.tree.size(layer.init(fn.key(0).to("meta"))) >= HUGE


def test_a_tensor_that_no_memory_holds_is_refused_where_the_layer_draws_it_itself() -> None:
    """The shape of a low-rank change is unknown to its layer."""
    with pytest.raises(ValueError, match=r"initialize: a tensor must fit in memory, got the shape \(2147483647, 4096\)"):
        fn.lora(fn.Linear(4096, 2), HUGE).init(0)


def test_memory_that_is_there_but_not_to_be_had_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    """If torch's allocator fails because other processes use the memory, the layer raises the error."""
    monkeypatch.setattr(explanations, "_MEMORY", float("inf"))
    with pytest.raises(ValueError, match=r"LayerNorm\(.*\): params must fit in memory, got .* GiB of weight"):
        fn.LayerNorm((WIDE, WIDE)).init(0)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda n: fn.ensemble(fn.Linear(2, 2), n), "n"),
        (lambda n: fn.ensemble(fn.MSE(), n), "n"),
        (lambda n: fn.LSTM(3, 4, n), "num_layers"),
        (lambda n: fn.scan_steps(fn.train_step(fn.Linear(2, 2), fn.MSE(), fn.SGD(0.1)), n), "k"),
    ],
)
def test_parts_that_are_made_one_by_one_are_bounded(make, name: str) -> None:
    """For members, layers and steps, the constructor refuses a count that was meant as a size."""
    with pytest.raises(ValueError, match=f"{name} must be a whole number of at most 1048576, got 1073741824"):
        make(1 << 30)
    make(3)


def test_a_missing_size_is_reported_before_a_huge_one() -> None:
    """A size to be inferred has no bytes to count."""
    with pytest.raises(ValueError, match="in_features must be inferred first"):
        fn.Linear(None, HUGE).init(0)
    assert torch.is_tensor(fn.Linear(3, 2).init(0)["weight"])
