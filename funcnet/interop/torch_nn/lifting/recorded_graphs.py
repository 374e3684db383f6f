"""Recorded graphs: in eager mode a cache contains autograd's graph of the forward pass, so that nothing is computed twice.

A graph consists of tensors: the floating leaves of y, which refer to autograd's graph, and the leaves that they were computed
from. Copies of these tensors lose the graph; y is then computed again, as in compiled code and within transforms of
``torch.func``.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcnet.kernels.tracing import is_eager


class Graph(NamedTuple):
    """A recorded forward pass: the outputs, and the parameters (by name) and inputs that have gradients."""

    ys: tuple[Tensor, ...]
    trained: dict[str, Tensor]
    xs: tuple[Tensor, ...]


class recording:  # noqa: N801 (called as a context by ``with``)
    """Context manager in which autograd records, in inference mode too."""

    def __enter__(self) -> None:
        self._modes = torch.inference_mode(False), torch.enable_grad()
        for mode in self._modes:
            mode.__enter__()

    def __exit__(self, *error: Any) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*error)


def may_record(tensors: Iterable[Any]) -> bool:
    """Return whether the tensors are plain, have values, and are not otherwise differentiated."""
    followed = torch.is_grad_enabled()
    return is_eager() and all(isinstance(x, Tensor) and not x.is_meta and not (followed and x.requires_grad) for x in tensors)


def normal(x: Tensor) -> Tensor:
    """Return a tensor that autograd can save; an inference tensor is copied."""
    return x.clone() if x.is_inference() else x.detach()


def gradients(graph: Any, gys: Sequence[Tensor], of_params: bool, of_x: bool) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Return the gradients of the parameters by name, and those of the inputs; the graph stays usable."""
    names, trained = ([*graph.trained], [*graph.trained.values()]) if of_params else ([], [])
    pairs = [(y, gy) for y, gy in zip(graph.ys, gys, strict=True) if y.requires_grad]
    wanted = [*trained, *graph.xs] if of_x else trained
    if not pairs or not wanted:
        found: Any = [torch.zeros_like(x, requires_grad=False) for x in wanted]
    else:
        ys, gs = zip(*pairs, strict=True)
        with torch.inference_mode(False):
            found = torch.autograd.grad(ys, wanted, gs, retain_graph=True, allow_unused=True, materialize_grads=True)
    n = len(names)
    return dict(zip(names, found[:n], strict=True)), list(found[n:])


def is_usable(graph: Any, gys: Iterable[Any]) -> bool:
    """Return whether a graph is unchanged since it was recorded and the backward pass is not being differentiated."""
    if not isinstance(graph, Graph) or not may_record(one for one in gys if one is not None):
        return False
    leaves = [*graph.trained.values(), *graph.xs]
    return all(x.is_leaf and x.requires_grad for x in leaves) and any(y.grad_fn is not None for y in graph.ys)
