"""Transforms: forward and backward on the meta device, in ``torch.func.vmap``, and compiled as one graph."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from funcnet import flattening, random, tree
from funcnet.contract import Layer
from funcnet.flattening import Tree
from funcnet.random.keys import Key
from funcnet.testing.comparison import check_equal, check_kept
from funcnet.testing.precision import moves_of
from funcnet.testing.purity import other

Work = Callable[..., Any]


def check_meta(layer: Layer, work: Work, arguments: tuple[Tree, ...], want: Tree) -> None:
    """Require the shapes and dtypes of ``want`` on the meta device."""
    check_kept(layer, "on the meta device,", work(*tree.to(arguments, "meta")), tree.to(want, "meta"))


def check_vmap(layer: Layer, work: Work, arguments: tuple[Tree, ...], want: Tree, rng: Key | int, dtype: torch.dtype) -> None:
    """Require that ``vmap`` over these arguments and other ones gives the same as separate calls."""
    others = (*other(arguments[:3]), random.fold_in(rng, 1))
    batch = tree.map(lambda one, two: torch.stack((one, two)), arguments, others)
    got = torch.func.vmap(lambda *one: tuple(tree.leaves(work(*one))), in_dims=tree.map(lambda _: 0, batch))(*batch)
    for i, (given, one) in enumerate(((arguments, want), (others, work(*others)))):
        row = flattening.unflatten(one, iter(_with_gaps(one, [leaf[i] for leaf in got])))
        moves = functools.partial(moves_of, layer, given[:3], given[3], dtype)
        check_equal(layer, "vmap must agree with a loop", row, one, scale=arguments[2], moves=moves)


def _with_gaps(like: Tree, leaves: list[Tensor]) -> list[Tensor | None]:
    """Put ``None`` back at the places where ``like`` has it."""
    rest = iter(leaves)
    return [None if leaf is None else next(rest) for leaf in flattening.flatten_together(like)[0]]


def check_compiled(layer: Layer, work: Work, arguments: tuple[Tree, ...], want: Tree) -> None:
    """Require that compiled code, traced as one graph, gives the same as eager code."""
    try:
        got = torch.compile(work, fullgraph=True, backend="aot_eager", dynamic=False)(*arguments)
    finally:
        torch.compiler.reset()
    check_equal(layer, "compiled code must agree with eager code", got, want, scale=arguments[2])
