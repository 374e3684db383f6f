"""Layers made of functions."""

from typing import Any

import torch
from torch import Tensor

import funcnet as fn
from cases.making import case, normal
from funcnet import random


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


CASES = {
    "elementwise of torch's": case(fn.elementwise(torch.sin, torch.cos), normal(4, 3)),
    "custom elementwise": case(fn.elementwise(cube, cube_slope), normal(4, 3)),
    "layer of functions": case(fn.layer(init=scale_init, apply=scale_apply, vjp=scale_vjp), normal(4, 3)),
}
