"""Sizes that cannot be inferred: the errors name the layer, the size and the place."""

from typing import Any

import attrs
import pytest
import torch
from lazy import LENET, quarter

import funcnet as fn


def nothing(shape: torch.Size) -> Any:
    """Return no layer."""
    return shape


def message(error: BaseException) -> str:
    """Return the message of an error with its notes."""
    return "\n".join([str(error), *getattr(error, "__notes__", [])])


L, C = "Linear(in_features=None, out_features=2)", "Conv1d(in_channels=None, out_channels=2, kernel_size=3)"

SENTENCES = {
    f"{L}: in_features must be inferred first, with fn.infer_sizes(net, x), got None": lambda: fn.Linear(None, 2).init(0),
    f"{L}: in_features must be inferred first, with fn.infer_sizes(net, x), got None\n  in serial, layer 1": (
        lambda: fn.serial(fn.Tanh(), fn.Linear(None, 2)).apply(({}, fn.Linear(3, 2).init(0)), torch.zeros(4, 3))
    ),
    "Bilinear(in1_features=None, in2_features=None, out_features=2): in1_features and in2_features must be inferred first, with fn.infer_sizes(net, x), got None": (
        lambda: fn.Bilinear(None, None, 2).init(0)
    ),
    f"{C}: x must have an axis -2, to infer in_channels from, got x of shape (4,)\n  in serial, layer 1\n  in parallel, layer 0": (
        lambda: fn.infer_sizes(fn.parallel(fn.serial(fn.Tanh(), fn.Conv1d(None, 2, 3))), ((4,),))
    ),
    "Linear(in_features=3, out_features=2): the last axis of x must be in_features=3, got x of shape (4, 5)\n  in branch, layer 1": (
        lambda: fn.infer_sizes(fn.branch(fn.Linear(None, 2), fn.Linear(3, 2)), (4, 5))
    ),
    "Add(broadcast=False): the operands must have the same shape, got shapes (4, 2) and (4, 5)\n  in residual, merge": (
        lambda: fn.infer_sizes(fn.residual(fn.Linear(None, 2)), (4, 5))
    ),
    f"{L}: x must have an axis -1, to infer in_features from, got x of shape ()\n  in graph, node 'h'": (
        lambda: fn.infer_sizes(fn.graph("x", h=(fn.Linear(None, 2), "x")), ())
    ),
    f"{L}: x must have an axis -1, to infer in_features from, got x of shape ()\n  in ensemble": (
        lambda: fn.infer_sizes(fn.ensemble(fn.Linear(None, 2), 3), ())
    ),
    "Linear(in_features=5, out_features=2): the last axis of x must be in_features=5, got x of shape (4, 6)\n  in shared, entry 1": (
        lambda: fn.infer_sizes(fn.shared(fn.Linear(None, 2)), ((4, 5), (4, 6)))
    ),
    f"{L}: x must have an axis -1, to infer in_features from, got x of shape ()\n  in lora": (
        lambda: fn.infer_sizes(fn.lora(fn.Linear(None, 2), 1), ())
    ),
    "LSTMCell(input_size=5, hidden_size=3): x must be an input, or (input, (h, c)) with states of its dtype and shape (4, 3), got shapes (4, 5) and ((4, 2), (4, 2))\n  in scan, step 0": (
        lambda: fn.infer_sizes(fn.scan(fn.LSTMCell(None, 3), output_is_carry=True), ((6, 4, 5), ((4, 2), (4, 2))))
    ),
    "map_over: x must have 2 leading axes, the same in all its parts, got a tensor of shape (4,) and dtype torch.float32": (
        lambda: fn.infer_sizes(fn.map_over(fn.Linear(None, 2)), (4,))
    ),
    "Bilinear(in1_features=None, in2_features=None, out_features=2): x must be a pair of floating tensors, got a tensor of shape (4,) and dtype torch.float32": (
        lambda: fn.infer_sizes(fn.Bilinear(None, None, 2), (4,))
    ),
    "Conv2d: groups must divide in_channels and out_channels, got groups=2, in_channels=5, out_channels=4\n  in serial, layer 0": (
        lambda: fn.infer_sizes(fn.serial(fn.Conv2d(None, 4, 3, groups=2)), (2, 5, 8, 8))
    ),
    "Linear: in_features must be a whole number of at least 1, got 0": lambda: fn.infer_sizes(fn.Linear(None, 4), (2, 0)),
    "Linear: out_features must be a whole number of at least 1, got None": lambda: fn.Linear(2, None),
    "Conv2d: groups must divide in_channels and out_channels, got groups=2, in_channels=None, out_channels=3": (
        lambda: fn.Conv2d(None, 3, 3, groups=2)
    ),
    "infer_sizes: x must be a tensor, a shape, or a tuple or dict of them, got 'x'": lambda: fn.infer_sizes(LENET, "x"),
    "shape_dependent(quarter): the layer must be created first, with fn.infer_sizes(net, x), got no shape": (
        lambda: fn.shape_dependent(quarter).init(0)
    ),
    "shape_dependent(quarter): the layer must be created first, with fn.infer_sizes(net, x), got no shape\n  in serial, layer 0": (
        lambda: fn.serial(fn.shape_dependent(quarter)).apply(({},), torch.zeros(4, 8))
    ),
    "shape_dependent(nothing): the function must return a layer, got a Size of 2": (
        lambda: fn.infer_sizes(fn.shape_dependent(nothing), (4, 8))
    ),
}


@pytest.mark.parametrize(("sentence", "call"), SENTENCES.items(), ids=SENTENCES)
def test_errors_say_who_what_and_where(sentence, call):
    """The error has the message and the place in the net."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the whole message is compared)
        call()
    assert message(caught.value) == sentence


def test_a_size_of_none_costs_a_working_layer_nothing():
    """The verbs of a layer are not wrapped: the check for unknown sizes runs only after a failure."""
    calls = []

    @attrs.frozen
    class Watched(fn.Linear):
        @property
        def inferred_sizes(self) -> dict[str, int]:
            calls.append(self)
            return {"in_features": -1}

    layer = Watched(3, 2)
    params, x = fn.Linear(3, 2).init(0), torch.zeros(4, 3)
    y, cache = layer.apply(params, x)
    layer.vjp(params, cache, y)
    layer(params, x)
    assert calls == []
