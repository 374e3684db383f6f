"""Functions that return a tensor unchanged, and checks, which compute nothing."""

from typing import Any

import torch

from funcnet.combinators.gradient_rules import ScaleGradient
from funcnet.interop.torch_nn.importing.functions.arguments import Tensor, node
from funcnet.interop.torch_nn.importing.registry import function
from funcnet.interop.torch_nn.importing.values import Node, UnsupportedError


@function("contiguous", "clone", torch.clone, "cpu", "cuda", "requires_grad_", "pin_memory", "as_subclass")
def _same(input: Any, *arguments: Any, **keywords: Any) -> Any:
    return input


@function("detach", "detach_", "data", torch.detach)
def _detach(input: Tensor) -> Node:
    return node(ScaleGradient(0.0), input)


@function("torch._assert", "register_hook", "retain_grad")
def _nothing(*arguments: Any, **keywords: Any) -> None:
    return None


@function("item", "tolist", "numpy")
def _refuse_numbers(input: Any) -> Any:
    raise UnsupportedError("a number that depends on the values of a tensor is not known when the module is traced")


@function("numel", torch.numel)
def _refuse_count(input: Any) -> Any:
    raise UnsupportedError("numel() depends on all sizes of a tensor; write the sizes, x.shape[0] * x.shape[1]")
