"""The catalogue: every layer with every option and in odd sizes, on small inputs; what is entered here, every law is tried on.

Params are fresh ones moved off their first values by 0.2 to 0.8, since weights that are 1 and biases that are 0 hide a missing
factor or term; running variances stay positive by it.
"""

from itertools import count
from typing import Any, NamedTuple

import torch
from torch import Tensor

import funcnet as fn
from funcnet import random, tree


class Case(NamedTuple):
    """A layer, an input and params; ``batched`` tells whether the first axis of the input is a batch."""

    layer: fn.Layer
    x: Any
    params: Any
    batched: bool = True


_seeds = count(1)


def normal(*shape: int) -> Tensor:
    """Draw normal numbers, others at every call."""
    return random.normal(next(_seeds), shape)


def between(low: float, high: float, *shape: int) -> Tensor:
    """Draw evenly between two bounds, others at every call."""
    return random.uniform(next(_seeds), shape, low, high)


def stirred(params: Any) -> Any:
    """Move the floating leaves by 0.2 to 0.8 each."""
    return tree.map(lambda leaf: leaf + between(0.2, 0.8, *leaf.shape) if leaf.is_floating_point() else leaf, params)


def case(layer: fn.Layer, x: Any, *, batched: bool = True) -> Case:
    return Case(layer, x, stirred(layer.init(0)), batched)


def loose(layer: fn.Layer, x: Any) -> Case:
    """Make a case whose first axis is no batch."""
    return case(layer, x, batched=False)


# 0 among positive and negative numbers, at a distance below every step of a difference, and alone.
KINKS = torch.tensor([[0.0, 1.0, -1.0, 1e-9, -1e-9], [0.0, 0.0, -0.0, 1e-4, -2.0]])
LARGE = torch.tensor([[50.0, -50.0, 0.0, 49.0], [-50.0, -50.0, -50.0, -50.0], [50.0, 50.0, 50.0, -1.0]])

LINEAR = {
    "Linear": case(fn.Linear(3, 2), normal(5, 3)),
    "Linear without bias": case(fn.Linear(3, 2, bias=False), normal(5, 3)),
    "Linear of one vector": case(fn.Linear(3, 2), normal(3)),
    "Linear of one row": case(fn.Linear(3, 2), normal(1, 3)),
    "Linear 1 to 1": case(fn.Linear(1, 1), normal(4, 1)),
    "Linear on 3 axes": case(fn.Linear(3, 4), normal(2, 5, 3)),
    "Linear on 4 axes without bias": case(fn.Linear(3, 4, bias=False), normal(2, 1, 5, 3)),
    "Linear as torch draws it": case(fn.Linear(3, 2, initializer="torch"), normal(5, 3)),
    "Linear of many": case(fn.Linear(19, 23), normal(17, 19)),
}

CONV = {
    "Conv1d": case(fn.Conv1d(2, 3, 3), normal(2, 2, 7)),
    "Conv1d without bias": case(fn.Conv1d(2, 3, 3, bias=False), normal(2, 2, 7)),
    "Conv1d kernel 1": case(fn.Conv1d(3, 2, 1), normal(2, 3, 4)),
    "Conv1d as long as x": case(fn.Conv1d(2, 3, 5), normal(2, 2, 5)),
    "Conv1d of one channel and row": case(fn.Conv1d(1, 1, 2), normal(1, 1, 4)),
    "Conv1d stride that leaves a rest": case(fn.Conv1d(2, 3, 3, stride=2), normal(2, 2, 8)),
    "Conv1d stride beyond the kernel": case(fn.Conv1d(2, 2, 2, stride=3), normal(2, 2, 9)),
    "Conv1d padding": case(fn.Conv1d(2, 3, 3, padding=1), normal(2, 2, 5)),
    "Conv1d padding beyond the kernel": case(fn.Conv1d(2, 2, 2, padding=3), normal(2, 2, 3)),
    "Conv1d dilation": case(fn.Conv1d(2, 3, 3, dilation=2), normal(2, 2, 7)),
    "Conv1d groups": case(fn.Conv1d(4, 6, 3, groups=2), normal(2, 4, 5)),
    "Conv1d depthwise": case(fn.Conv1d(3, 3, 2, groups=3, bias=False), normal(2, 3, 5)),
    "Conv1d depthwise with multiplier": case(fn.Conv1d(2, 4, 2, groups=2), normal(3, 2, 5)),
    "Conv1d all options": case(fn.Conv1d(4, 2, 3, stride=2, padding=2, dilation=2, groups=2), normal(2, 4, 8)),
    "Conv1d valid": case(fn.Conv1d(2, 3, 3, stride=2, padding="valid"), normal(2, 2, 6)),
    "Conv1d same, odd kernel": case(fn.Conv1d(2, 3, 3, padding="same"), normal(2, 2, 5)),
    "Conv1d same, even kernel": case(fn.Conv1d(2, 3, 4, padding="same"), normal(2, 2, 5)),
    "Conv1d same, uneven by dilation": case(fn.Conv1d(2, 2, 2, padding="same", dilation=3, groups=2), normal(2, 2, 5)),
    "Conv1d same, kernel longer than x": case(fn.Conv1d(1, 2, 4, padding="same"), normal(2, 1, 2)),
    "Conv1d without batch": loose(fn.Conv1d(2, 3, 3, padding=1), normal(2, 5)),
    "Conv1d same, without batch": loose(fn.Conv1d(2, 3, 2, padding="same"), normal(2, 4)),
    "Conv1d as torch draws it": case(fn.Conv1d(2, 3, 3, initializer="torch"), normal(2, 2, 5)),
    "Conv1d of many": case(fn.Conv1d(5, 7, 3), normal(3, 5, 11)),
}

NORMALIZATION = {
    "BatchNorm1d": case(fn.BatchNorm1d(3), normal(4, 3)),
    "BatchNorm1d with length": case(fn.BatchNorm1d(3), normal(2, 3, 5)),
    "BatchNorm1d of one row with length": case(fn.BatchNorm1d(2), normal(1, 2, 5)),
    "BatchNorm1d of one channel": case(fn.BatchNorm1d(1), normal(3, 1)),
    "BatchNorm1d of two rows": case(fn.BatchNorm1d(2), normal(2, 2)),
    "BatchNorm1d not affine": case(fn.BatchNorm1d(3, affine=False), normal(4, 3)),
    "BatchNorm1d without statistics": case(fn.BatchNorm1d(3, track_running_stats=False), normal(4, 3)),
    "BatchNorm1d without anything": case(fn.BatchNorm1d(3, affine=False, track_running_stats=False), normal(4, 3)),
    "BatchNorm1d mean of all batches": case(fn.BatchNorm1d(3, momentum=None), normal(4, 3)),
    "BatchNorm1d large eps": case(fn.BatchNorm1d(3, eps=0.5, momentum=0.3), normal(4, 3)),
    "BatchNorm1d far from 0": case(fn.BatchNorm1d(3), normal(4, 3) + 100),
    "BatchNorm1d inference": case(fn.BatchNorm1d(3).inference(), normal(4, 3)),
    "BatchNorm1d inference with length": case(fn.BatchNorm1d(3, eps=0.1).inference(), normal(2, 3, 5)),
    "BatchNorm1d inference not affine": case(fn.BatchNorm1d(3, affine=False).inference(), normal(4, 3)),
    "BatchNorm1d inference without statistics": case(fn.BatchNorm1d(3, track_running_stats=False).inference(), normal(4, 3)),
}

ACTIVATION = {
    "ReLU": case(fn.ReLU(), normal(4, 3)),
    "ReLU on 3 axes": case(fn.ReLU(), normal(2, 3, 4)),
    "ReLU of one number": case(fn.ReLU(), torch.tensor(0.5)),
    "ReLU on its kink": case(fn.ReLU(), KINKS),
    "ReLU of many, half of them on the kink": case(fn.ReLU(), normal(20, 5).clamp_min(0.0)),
    "LeakyReLU": case(fn.LeakyReLU(), normal(4, 3)),
    "LeakyReLU on its kink": case(fn.LeakyReLU(0.2), KINKS),
    "LeakyReLU slope 0": case(fn.LeakyReLU(0.0), KINKS),
    "LeakyReLU slope 1": case(fn.LeakyReLU(1.0), KINKS),
    "LeakyReLU slope above 1": case(fn.LeakyReLU(1.5), KINKS),
    "LeakyReLU falling": case(fn.LeakyReLU(-0.5), KINKS),
    "Sigmoid": case(fn.Sigmoid(), normal(4, 3)),
    "Sigmoid of a vector": case(fn.Sigmoid(), normal(3)),
    "Sigmoid of large numbers": case(fn.Sigmoid(), LARGE),
    "Tanh": case(fn.Tanh(), normal(4, 3)),
    "Tanh of large numbers": case(fn.Tanh(), LARGE),
    "Softmax": case(fn.Softmax(), normal(4, 3)),
    "Softmax of a vector": case(fn.Softmax(), normal(3)),
    "Softmax of one number": case(fn.Softmax(), normal(2, 1)),
    "Softmax of large numbers": case(fn.Softmax(), LARGE),
    "Softmax along the middle axis": case(fn.Softmax(1), normal(2, 3, 4)),
    "Softmax along the first axis": loose(fn.Softmax(0), normal(4, 3)),
    "LogSoftmax": case(fn.LogSoftmax(), normal(4, 3)),
    "LogSoftmax of a vector": case(fn.LogSoftmax(), normal(3)),
    "LogSoftmax of one number": case(fn.LogSoftmax(), normal(2, 1)),
    "LogSoftmax of large numbers": case(fn.LogSoftmax(), LARGE),
    "LogSoftmax along the middle axis": case(fn.LogSoftmax(-2), normal(2, 3, 4)),
    "LogSoftmax along the first axis": loose(fn.LogSoftmax(0), normal(4, 3)),
}

DROPOUT = {
    "Dropout": case(fn.Dropout(), normal(4, 3)),
    "Dropout on 3 axes": case(fn.Dropout(0.2), normal(2, 3, 5)),
    "Dropout of a vector": case(fn.Dropout(0.3), normal(7)),
    "Dropout of nothing": case(fn.Dropout(0.0), normal(4, 3)),
    "Dropout of all": case(fn.Dropout(1.0), normal(4, 3)),
    "Dropout inference": case(fn.Dropout(0.5).inference(), normal(4, 3)),
}

SHAPE = {
    "Identity": case(fn.Identity(), normal(4, 3)),
    "Identity of a pair": case(fn.Identity(), (normal(4, 3), normal(4, 2, 1))),
    "Flatten": case(fn.Flatten(), normal(2, 3, 4)),
    "Flatten of 2 axes": case(fn.Flatten(), normal(4, 3)),
    "Flatten of 4 axes": case(fn.Flatten(), normal(2, 3, 1, 4)),
    "Flatten all": case(fn.Flatten(0), normal(2, 3, 4)),
    "Flatten the middle": case(fn.Flatten(1, 2), normal(2, 3, 4, 5)),
    "Flatten from the end": case(fn.Flatten(-2, -1), normal(2, 3, 4)),
    "Flatten the first two": case(fn.Flatten(0, 1), normal(2, 3, 4)),
}

ARITHMETIC = {
    "Add": case(fn.Add(), (normal(4, 3), normal(4, 3))),
    "Add of one": case(fn.Add(), (normal(4, 3),)),
    "Add of three": case(fn.Add(), (normal(4, 3), normal(3), normal(4, 1))),
    "Add both broadcast": case(fn.Add(), (normal(4, 1), normal(1, 3))),
    "Add a number": case(fn.Add(), (normal(4, 3), normal())),
    "Sub": case(fn.Sub(), (normal(4, 3), normal(4, 3))),
    "Sub broadcast": case(fn.Sub(), (normal(3), normal(2, 4, 1))),
    "Mul": case(fn.Mul(), (normal(4, 3), normal(4, 3))),
    "Mul of one": case(fn.Mul(), (normal(4, 3),)),
    "Mul of four": case(fn.Mul(), (normal(4, 3), normal(3), normal(4, 1), normal())),
    "Mul with zeros": case(fn.Mul(), (KINKS, KINKS.flip(1), KINKS * 2)),
    "Div": case(fn.Div(), (normal(4, 3), between(0.5, 2.0, 4, 3))),
    "Div broadcast": case(fn.Div(), (normal(4, 1), -between(0.5, 2.0, 2, 1, 3))),
    "Pow": case(fn.Pow(), (between(0.5, 2.0, 4, 3), normal(4, 3))),
    "Pow broadcast": case(fn.Pow(), (between(0.5, 2.0, 4, 1), normal(3))),
    "Pow of 0": loose(fn.Pow(), (torch.tensor([0.0, 0.0, 0.5]), torch.tensor([2.0, 1.0, 0.0]))),
    "MatMul": case(fn.MatMul(), (normal(4, 3), normal(3, 2))),
    "MatMul of batches": case(fn.MatMul(), (normal(2, 4, 3), normal(2, 3, 5))),
    "MatMul broadcast": case(fn.MatMul(), (normal(2, 1, 4, 3), normal(5, 3, 2))),
    "MatMul batch by matrix": case(fn.MatMul(), (normal(2, 4, 3), normal(3, 2))),
    "MatMul of vectors": case(fn.MatMul(), (normal(3), normal(3))),
    "MatMul vector by matrix": case(fn.MatMul(), (normal(3), normal(3, 2))),
    "MatMul matrix by vector": case(fn.MatMul(), (normal(4, 3), normal(3))),
    "MatMul vector by batch": case(fn.MatMul(), (normal(3), normal(2, 3, 4))),
    "MatMul batch by vector": case(fn.MatMul(), (normal(2, 4, 3), normal(3))),
    "Concat": case(fn.Concat(), (normal(4, 3), normal(4, 2), normal(4, 1))),
    "Concat of one": case(fn.Concat(), (normal(4, 3),)),
    "Concat channels": case(fn.Concat(1), (normal(2, 3, 4), normal(2, 1, 4))),
    "Concat from the end": case(fn.Concat(-2), (normal(2, 3, 4), normal(2, 2, 4))),
    "Concat rows": case(fn.Concat(0), (normal(4, 3), normal(2, 3))),
    "Mean": case(fn.Mean(), normal(4, 3)),
    "Mean of a number": case(fn.Mean(), normal()),
    "Mean kept": case(fn.Mean(keepdim=True), normal(4, 3)),
    "Mean of rows": case(fn.Mean(0), normal(4, 3)),
    "Mean of features": case(fn.Mean(-1), normal(4, 3)),
    "Mean of features kept": case(fn.Mean(1, keepdim=True), normal(4, 3)),
    "Mean of two axes": case(fn.Mean((1, 2)), normal(2, 3, 4)),
    "Mean of the outer axes kept": case(fn.Mean((0, -1), keepdim=True), normal(2, 3, 4)),
}


def cube(x: Tensor) -> Tensor:
    return x**3


def cube_slope(x: Tensor) -> Tensor:
    return 3 * x**2


def scale_init(rng: Any) -> Any:
    return {"scale": random.uniform(rng, (3,), 0.5, 1.5)}


def scale_apply(params: Any, x: Tensor) -> Any:
    return params["scale"] * x, x


def scale_vjp(params: Any, cache: Tensor, gy: Tensor) -> Any:
    return {"scale": (gy * cache).sum(0)}, params["scale"] * gy


CUSTOM = {
    "elementwise of torch's": case(fn.elementwise(torch.sin, torch.cos), normal(4, 3)),
    "elementwise of one's own": case(fn.elementwise(cube, cube_slope), normal(4, 3)),
    "layer of functions": case(fn.layer(init=scale_init, apply=scale_apply, vjp=scale_vjp), normal(4, 3)),
}

DEEP = fn.serial(*[layer for _ in range(6) for layer in (fn.Linear(4, 4), fn.Tanh())])
NORMED = fn.serial(fn.Linear(3, 4), fn.BatchNorm1d(4), fn.ReLU(), fn.Dropout(0.4), fn.Linear(4, 2))
CONVOLVED = fn.serial(fn.Conv1d(1, 3, 3, padding=1), fn.Tanh(), fn.Flatten(), fn.Linear(15, 2), fn.LogSoftmax())

SERIAL = {
    "serial of none": case(fn.serial(), normal(4, 3)),
    "serial of one": case(fn.serial(fn.Linear(3, 2)), normal(4, 3)),
    "serial": case(fn.serial(fn.Linear(3, 5), fn.Tanh(), fn.Linear(5, 2)), normal(4, 3)),
    "serial by names": case(fn.serial(hidden=fn.Linear(3, 5), act=fn.Sigmoid(), out=fn.Linear(5, 2)), normal(4, 3)),
    "serial without params": case(fn.serial(fn.Tanh(), fn.Softmax()), normal(4, 3)),
    "serial, params behind": case(fn.serial(fn.Flatten(), fn.Tanh(), fn.Linear(6, 2), fn.Tanh()), normal(4, 2, 3)),
    "serial, nested": case(
        fn.serial(fn.serial(fn.Tanh(), fn.Linear(3, 2)), fn.serial(), fn.serial(fn.Linear(2, 3))), normal(4, 3)
    ),
    "serial, deep": case(DEEP, normal(3, 4)),
    "serial, convolutional": case(CONVOLVED, normal(2, 1, 5)),
    "serial, normalized and dropped": case(NORMED, normal(6, 3)),
    "serial, normalized, inference": case(NORMED.inference(), normal(6, 3)),
    "serial, normalized first": case(fn.serial(fn.BatchNorm1d(3), fn.Linear(3, 2)), normal(4, 3)),
    "serial, bias before norm": case(fn.serial(fn.Conv1d(2, 3, 2), fn.BatchNorm1d(3)), normal(3, 2, 4)),
    "serial of arithmetic": case(fn.serial(fn.Mul(), fn.Linear(3, 2)), (normal(4, 3), normal(4, 3))),
}

PLAIN, DROPPED = fn.serial(fn.Linear(3, 2), fn.Tanh()), fn.serial(fn.Dropout(0.3), fn.Linear(3, 2))

BRANCHING = {
    "parallel": case(fn.parallel(fn.Linear(3, 2), fn.Tanh()), (normal(4, 3), normal(4, 2, 2))),
    "parallel of one": case(fn.parallel(fn.Linear(3, 2)), (normal(4, 3),)),
    "parallel with dropout": case(fn.parallel(DROPPED, fn.Dropout(), fn.Identity()), (normal(4, 3), normal(4, 2), normal(4, 1))),
    "branch": case(fn.branch(fn.Linear(3, 2), fn.Tanh()), normal(4, 3)),
    "branch of one": case(fn.branch(PLAIN), normal(4, 3)),
    "branch and add": case(fn.branch(PLAIN, fn.Linear(3, 2), merge=fn.Add()), normal(4, 3)),
    "branch and multiply": case(fn.branch(PLAIN, fn.serial(fn.Linear(3, 2), fn.Sigmoid()), merge=fn.Mul()), normal(4, 3)),
    "branch and concat": case(fn.branch(PLAIN, fn.Identity(), merge=fn.Concat()), normal(4, 3)),
    "branch, merge with params": case(
        fn.branch(fn.Tanh(), fn.Identity(), merge=fn.serial(fn.Concat(), fn.Linear(6, 2))), normal(4, 3)
    ),
    "branch with dropout": case(fn.branch(DROPPED, DROPPED, merge=fn.Sub()), normal(4, 3)),
    "branch with norm": case(fn.branch(fn.BatchNorm1d(3), fn.ReLU(), merge=fn.Add()), normal(4, 3)),
    "residual": case(fn.residual(fn.serial(fn.Linear(3, 5), fn.Tanh(), fn.Linear(5, 3))), normal(4, 3)),
    "residual with projection": case(fn.residual(PLAIN, fn.Linear(3, 2, bias=False)), normal(4, 3)),
    "residual with dropout": case(fn.residual(fn.serial(fn.BatchNorm1d(3), fn.Dropout(0.2), fn.Linear(3, 3))), normal(4, 3)),
    "residual, nested": case(fn.residual(fn.residual(fn.Tanh())), normal(4, 3)),
}

SUM, PRODUCT = fn.Add(), fn.Mul()

GRAPH = {
    "graph of one node": case(fn.graph("x", y=(fn.Linear(3, 2), "x")), normal(4, 3)),
    "graph, skip": case(fn.graph("x", h=(fn.Linear(3, 2), "x"), a=(fn.Tanh(), "h"), y=(SUM, "a", "h")), normal(4, 3)),
    "graph, diamond": case(
        fn.graph("x", a=(fn.Linear(3, 2), "x"), b=(fn.Linear(3, 2), "x"), c=(PRODUCT, "a", "b"), y=(SUM, "a", "b", "c")),
        normal(4, 3),
    ),
    "graph, a value used three times": case(fn.graph("x", y=(PRODUCT, "x", "x", "x")), normal(4, 3)),
    "graph of two inputs": case(
        fn.graph(
            "u",
            "v",
            a=(fn.Linear(3, 2), "u"),
            b=(fn.Linear(4, 2), "v"),
            y=(fn.Div(), "a", "s"),
            s=(fn.Sigmoid(), "b"),
            output="y",
        ),
        (normal(5, 3), normal(5, 4)),
    ),
    "graph of two outputs": case(
        fn.graph("x", h=(fn.Linear(3, 2), "x"), a=(fn.Tanh(), "h"), b=(fn.Sigmoid(), "h"), output=("a", "b")), normal(4, 3)
    ),
    "graph, an output used inside": case(
        fn.graph("x", h=(fn.Linear(3, 3), "x"), y=(SUM, "h", "x"), output=("y", "h")), normal(4, 3)
    ),
    "graph with dropout and norm": case(
        fn.graph("x", n=(fn.BatchNorm1d(3), "x"), d=(fn.Dropout(0.3), "n"), y=(SUM, "d", "x")), normal(4, 3)
    ),
    "graph in a serial": case(fn.serial(fn.graph("x", a=(fn.Tanh(), "x"), y=(PRODUCT, "a", "x")), fn.Linear(3, 2)), normal(4, 3)),
}

REPETITION = {
    "ensemble": case(fn.ensemble(fn.Linear(3, 2), 2), normal(4, 3)),
    "ensemble of one": case(fn.ensemble(PLAIN, 1), normal(4, 3)),
    "ensemble of an input each": case(fn.ensemble(PLAIN, 2, shared_input=False), normal(2, 4, 3), batched=False),
    "ensemble with dropout and norm": case(fn.ensemble(NORMED, 2), normal(6, 3)),
    "ensemble without params": case(fn.ensemble(fn.Tanh(), 3), normal(4, 3)),
    "ensemble of two inputs": case(fn.ensemble(fn.parallel(fn.Linear(3, 2), fn.Tanh()), 2), (normal(4, 3), normal(4, 2))),
    "ensemble in a serial": case(fn.serial(fn.ensemble(fn.Linear(3, 2), 2), fn.Mean(0)), normal(4, 3)),
}

REDUCTIONS = ("mean", "sum", "batch", "none")
LABELS, CLASSES = torch.tensor([0, 2, 1, 2]), torch.tensor([[0, 1, 2], [2, 2, 0]])
WEIGHT = (0.5, 2.0, 1.5)


def loss(criterion: fn.Loss, y: Tensor, target: Tensor) -> Case:
    return case(criterion.as_layer(), (y, target))


REGRESSION = {
    f"{kind.__name__} {reduction}": loss(kind(reduction), normal(4, 3), normal(4, 3))
    for kind in (fn.MSE, fn.L1, fn.L2)
    for reduction in REDUCTIONS
} | {
    "MSE of vectors": loss(fn.MSE(), normal(4), normal(4)),
    "MSE of numbers": loss(fn.MSE("batch"), normal(), normal()),
    "MSE on 3 axes": loss(fn.MSE("batch"), normal(2, 3, 4), normal(2, 3, 4)),
    "MSE of integers": loss(fn.MSE(), normal(4, 3), torch.arange(12).reshape(4, 3)),
    "L1 on its kink": loss(fn.L1(), KINKS, torch.zeros(2, 5)),
    "L2 of booleans": loss(fn.L2("none"), normal(4), LABELS > 1),
    "L2 of one row": loss(fn.L2(), normal(1, 3), normal(1, 3)),
}

BINARY = (
    {f"BCE {reduction}": loss(fn.BCE(reduction), between(0.1, 0.9, 4, 3), between(0.1, 0.9, 4, 3)) for reduction in REDUCTIONS}
    | {
        f"BCEWithLogits {reduction}": loss(fn.BCEWithLogits(reduction), normal(4, 3), between(0.1, 0.9, 4, 3))
        for reduction in REDUCTIONS
    }
    | {
        "BCE of integers": loss(fn.BCE(), between(0.1, 0.9, 4), LABELS // 2),
        "BCE of booleans": loss(fn.BCE("none"), between(0.1, 0.9, 4, 1), LABELS[:, None] > 1),
        "BCEWithLogits of integers": loss(fn.BCEWithLogits(), normal(4), LABELS // 2),
        "BCEWithLogits of large numbers": loss(fn.BCEWithLogits("sum"), LARGE, between(0.1, 0.9, 3, 4)),
        "BCEWithLogits at 0": loss(fn.BCEWithLogits("sum"), torch.zeros(2, 3), between(0.1, 0.9, 2, 3)),
        "BCEWithLogits weighted": loss(fn.BCEWithLogits(pos_weight=3.0), normal(4, 3), between(0.1, 0.9, 4, 3)),
        "BCEWithLogits weighted by column": loss(fn.BCEWithLogits("none", WEIGHT), normal(4, 3), between(0.1, 0.9, 4, 3)),
    }
)

ENTROPY = (
    {f"CrossEntropy {reduction}": loss(fn.CrossEntropy(reduction=reduction), normal(4, 3), LABELS) for reduction in REDUCTIONS}
    | {
        f"CrossEntropy of probabilities, {reduction}": loss(
            fn.CrossEntropy(reduction=reduction), normal(4, 3), between(0.1, 0.9, 4, 3)
        )
        for reduction in REDUCTIONS
    }
    | {
        f"CrossEntropy with all options, {reduction}": loss(fn.CrossEntropy(WEIGHT, 1, reduction, 0.2), normal(4, 3), LABELS)
        for reduction in REDUCTIONS
    }
    | {
        "CrossEntropy weighted": loss(fn.CrossEntropy(WEIGHT), normal(4, 3), LABELS),
        "CrossEntropy weighted by 0": loss(fn.CrossEntropy((0.0, 1.0, 2.0)), normal(4, 3), LABELS),
        "CrossEntropy, all ignored": loss(fn.CrossEntropy(ignore_index=2), normal(2, 3), torch.tensor([2, 2])),
        "CrossEntropy smoothed": loss(fn.CrossEntropy(label_smoothing=0.3), normal(4, 3), LABELS),
        "CrossEntropy of one row": loss(fn.CrossEntropy(), normal(1, 3), LABELS[:1]),
        "CrossEntropy without batch": loss(fn.CrossEntropy(), normal(3), LABELS[1]),
        "CrossEntropy on 3 axes": loss(fn.CrossEntropy(WEIGHT, reduction="batch"), normal(2, 3, 3), CLASSES),
        "CrossEntropy of large numbers": loss(fn.CrossEntropy(reduction="sum"), LARGE, torch.tensor([0, 1, 3])),
        "CrossEntropy of probabilities, all options": loss(
            fn.CrossEntropy(WEIGHT, label_smoothing=0.2), normal(2, 3, 2), between(0.1, 0.9, 2, 3, 2)
        ),
    }
)

TRAINING = {
    "net with loss": case(
        fn.serial(
            fn.parallel(fn.serial(fn.Linear(3, 5), fn.Tanh(), fn.Linear(5, 3)), fn.Identity()), fn.CrossEntropy().as_layer()
        ),
        (normal(4, 3), LABELS),
    ),
    "graph with two losses": case(
        fn.graph(
            "x",
            "t",
            h=(fn.Linear(3, 2), "x"),
            one=(fn.MSE().as_layer(), "h", "t"),
            two=(fn.L2("batch").as_layer(), "h", "t"),
            value=(SUM, "one", "two"),
        ),
        (normal(4, 3), normal(4, 2)),
    ),
}

CASES: dict[str, Case] = {
    **LINEAR,
    **CONV,
    **NORMALIZATION,
    **ACTIVATION,
    **DROPOUT,
    **SHAPE,
    **ARITHMETIC,
    **CUSTOM,
    **SERIAL,
    **BRANCHING,
    **GRAPH,
    **REPETITION,
    **REGRESSION,
    **BINARY,
    **ENTROPY,
    **TRAINING,
}
