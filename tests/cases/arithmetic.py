"""Operations on several operands, and layers made of functions."""

from typing import Any

import torch
from torch import Tensor

import funcnet as fn
from cases.making import KINKS, between, case, loose, normal
from funcnet import random

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

CASES = {**ARITHMETIC, **CUSTOM}
