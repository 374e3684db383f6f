"""Traced and computed strides: a compiler plans views with the traced strides, so those of kernels must be equal."""

from typing import Any

import pytest
import torch
from functorch.compile import make_boxed_func
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch.fx import GraphModule, Interpreter, Node

import funcnet as fn
from funcnet import tree

PAIR = (4, 3)
LAYERS = {
    "BatchNorm1d": (fn.BatchNorm1d(3), PAIR),
    "BatchNorm1d, inference": (fn.BatchNorm1d(3).inference(), PAIR),
    "BatchNorm1d, no statistics": (fn.BatchNorm1d(3, track_running_stats=False), PAIR),
    "BatchNorm2d": (fn.BatchNorm2d(2), (2, 2, 3, 4)),
    "LayerNorm": (fn.LayerNorm(3), PAIR),
    "RMSNorm": (fn.RMSNorm(3), PAIR),
    "GroupNorm": (fn.GroupNorm(2, 4), (2, 4, 3, 5)),
    "InstanceNorm2d": (fn.InstanceNorm2d(3), (2, 3, 4, 5)),
    "LogSoftmax": (fn.LogSoftmax(), PAIR),
    "LogSigmoid": (fn.LogSigmoid(), PAIR),
    "Dropout": (fn.Dropout(0.5), PAIR),
    "attention, dropped": (fn.MultiHeadAttention(8, 2, dropout=0.5), (3, 5, 8)),
    "attention, normalized over the batch": (fn.MultiHeadAttention(8, 2, qk_norm=fn.BatchNorm2d(2)), (3, 5, 8)),
}


def transposed(values: Any) -> Any:
    """Return tensors with the same elements, whose axes, except the first, are in reverse order in memory."""
    return tree.map(lambda x: x.transpose(0, 1).contiguous().transpose(0, 1) if x.dim() == 2 else _reversed(x), values)


def _reversed(x: Tensor) -> Tensor:
    order = [0, *reversed(range(1, x.dim()))] if x.dim() > 2 else [*range(x.dim())]
    return x.permute(order).contiguous().permute([order.index(i) for i in range(len(order))])


class Comparing(Interpreter):
    """Run a graph, and record each result whose strides differ from the traced ones."""

    def __init__(self, graph: GraphModule, found: list[str]) -> None:
        super().__init__(graph)
        self.found = found

    def run_node(self, node: Node) -> Any:
        result = super().run_node(node)
        for got, traced in zip(_tensors(result), _tensors(node.meta.get("val")), strict=False):
            if _strides(got) != _strides(traced):
                self.found.append(f"{node.target}: {tuple(got.stride())}, traced as {tuple(traced.stride())}")
        return result


def _tensors(values: Any) -> list[Tensor]:
    return [one for one in (values if isinstance(values, (tuple, list)) else [values]) if isinstance(one, Tensor)]


def _strides(x: Tensor) -> list[int]:
    """Return the strides of the axes with more than one element."""
    return [stride for stride, size in zip(x.stride(), x.shape, strict=True) if size > 1] if x.numel() else []


@pytest.mark.compiled
@pytest.mark.parametrize(("layer", "shape"), LAYERS.values(), ids=LAYERS)
def test_kernels_have_the_strides_that_were_traced(layer: fn.Layer, shape: tuple[int, ...]) -> None:
    """Forward and backward run on x and gy that are not contiguous; the results equal those of eager mode."""
    found: list[str] = []

    def compiler(graph: GraphModule, inputs: Any) -> Any:
        return make_boxed_func(Comparing(graph, found).run)

    def both(params: Any, x: Tensor, gy: Tensor) -> Any:
        y, cache = layer.apply(params, x, 3)
        return y, layer.vjp(params, cache, gy)

    torch._dynamo.reset()  # each layer creates a function with the same code
    params, x = layer.init(0), transposed(fn.random.normal(1, shape))
    gy = transposed(fn.random.normal(2, layer.apply(params, x, 3)[0].shape))
    compiled = torch.compile(both, backend=aot_autograd(fw_compiler=compiler), fullgraph=True)
    torch.testing.assert_close(compiled(params, x, gy), both(params, x, gy))
    assert found == []
