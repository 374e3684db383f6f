"""Muon: a step on the matrices of a GPT, pure and donated, beside torch.optim.Muon.

A block of width d has matrices of (3 d, d), (d, d), (4 d, d) and (d, 4 d). The Newton-Schulz steps are in bfloat16, as in torch,
and in float32.
"""

from collections.abc import Iterator
from typing import Any

import torch

import funcnet as fn
from examples.benchmarks.turns import Ways

QUOTIENTS = {"donated / torch": ("donated", "torch"), "float32 / torch": ("donated, float32", "torch")}
SIZES = {"4 blocks of width 128": (4, 128), "2 blocks of width 384": (2, 384)}


def matrices(blocks: int, width: int) -> dict[str, torch.Tensor]:
    """Draw the matrices of a GPT's blocks."""
    shapes = {"qkv": (3 * width, width), "out": (width, width), "up": (4 * width, width), "down": (width, 4 * width)}
    names = [(f"{i}.{name}", shape) for i in range(blocks) for name, shape in shapes.items()]
    return {name: fn.random.normal(fn.fold_in(0, name), shape) for name, shape in names}


def contenders(params: dict[str, torch.Tensor]) -> Ways:
    """Return functions that take a step, each continuing from its last result."""
    grads = fn.tree.map(torch.cos, params)
    leaves = {name: torch.nn.Parameter(p.clone()) for name, p in params.items()}
    for name, leaf in leaves.items():
        leaf.grad = grads[name].clone()
    opt = torch.optim.Muon(leaves.values())
    return {
        "pure": _steps(fn.Muon(), grads, params),
        "donated": _steps(fn.donate(fn.Muon()), grads, params),
        "donated, float32": _steps(fn.donate(fn.Muon(ns_dtype=torch.float32)), grads, params),
        "torch": lambda: (opt.step(), leaves)[1],
    }


def _steps(opt: fn.Optimizer, grads: Any, params: Any) -> Any:
    """Return a function that takes another step, and returns the params."""
    params = fn.tree.map(torch.clone, params)
    now = [(params, opt.init(params))]

    def step() -> Any:
        params, state = now[0]
        now[0] = opt.update(grads, state, params)
        return now[0][0]

    return step


def cases() -> Iterator[tuple[str, Ways]]:
    """Yield the rows of the table."""
    for name, (blocks, width) in SIZES.items():
        yield name, contenders(matrices(blocks, width))
