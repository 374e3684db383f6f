"""Inductor's options for a graph, by the sizes of its tensors, its length and its operators."""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from funcnet import tree
from funcnet.kernels import small_products
from funcnet.kernels.choices import NEVER, choice

THREADS = choice("threads of compiled loops", {"one": NEVER, "all": 0}, lambda cpu: 8193, "elements of the largest tensor")
"""Number of elements of the largest tensor from which a graph is compiled for several threads; see ``kernel_of``."""

CALLS = choice("calls of compiled graphs", {"-O3": NEVER, "-O1": 0}, lambda cpu: 500, "nodes")
"""Number of nodes from which the calls in a graph are compiled separately from its kernels, with ``-O1``; see ``kernel_of``."""

STREAMS = choice("tensors in one compiled loop", {"up to 16": NEVER, "up to 8": 0}, lambda cpu: 1 << 23, "elements of all inputs")
"""Number of elements of all inputs from which Inductor puts fewer independent tensors into one loop.

Fused loops over many parameters read and write more streams of memory than a core prefetches. On an AMD EPYC a compiled AdamW
step of 10 M parameters in 100 tensors takes 13.9 ms with up to 8 tensors per loop and 20.4 with up to 16; donated, it takes 9.0
and 9.3. With 1.9 M parameters both take the same time. The time to compile grows by 0.1 s per tensor.
"""


@cache
def inductor_options() -> dict[str, Any]:
    """Return Inductor's options that speed up steps, if this build of torch has them.

    ``cpp_wrapper`` calls the kernels from C++ and makes a small step a tenth faster. ``cpp.threads`` is read at compile time.
    ``cpp_wrapper_build_separate`` compiles the calls, one long C++ function, with ``-O1`` instead of ``-O3``.
    """
    wanted = {
        "cpp_wrapper": True,
        "cpp.threads": 1,
        "cpp_wrapper_build_separate": True,
        "cpp.max_horizontal_fusion_size": 8,
    }
    return known(wanted)


def known(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that this build of torch has."""
    try:
        known = set(torch._inductor.list_options())
    except Exception:
        known = set()
    return {name: value for name, value in options.items() if name in known}


def product_options() -> dict[str, Any]:
    """Return Inductor's options for small products; none if this release of torch lacks the private names that they use.

    Loops over a product's result are not fused into the product's kernel, where they would not be faster.
    """
    if small_products.SMALL.value == 0:
        return {}
    try:
        from funcnet.compilation.product_template import ProductPass
    except Exception:
        return {}
    return {"post_grad_custom_post_pass": ProductPass(), "epilogue_fusion": False}


def step_options(values: list[Any], inputs: list[Any]) -> dict[str, Any]:
    """Return Inductor's options for a graph with these node values and inputs."""
    fits = {
        "cpp.threads": are_small(values),
        "cpp_wrapper_build_separate": len(values) >= CALLS.value,
        "cpp.max_horizontal_fusion_size": _elements(inputs) >= STREAMS.value,
    }
    return {name: value for name, value in inductor_options().items() if fits.get(name, True)}


def are_small(values: list[Any]) -> bool:
    """Return whether every tensor among the values of a graph is small; a symbolic size does not count as small."""
    sizes = [value.numel() for row in values for value in tree.leaves(row) if isinstance(value, Tensor)]
    return all(type(size) is int and size < THREADS.value for size in sizes)


def _elements(inputs: list[Any]) -> int:
    """Return the number of elements of all inputs of fixed size."""
    sizes = [one.numel() for one in inputs if isinstance(one, Tensor)]
    return sum(size for size in sizes if type(size) is int)


def sends(graph: Any) -> bool:
    """Return whether a graph has collectives."""
    return any("c10d_functional" in str(node.target) for node in graph.graph.nodes)


def needs_checks(graph: Any, values: list[Any]) -> bool:
    """Return whether compiled code must compare the sizes and strides of inputs, and of the results of other kernels.

    A program's guard has already compared its inputs; a second comparison in C++ takes 0.25 µs per input. A step of pychrot, with
    40 inputs, takes 57 µs without and 68 with it, a step of the 2-25-25-25-2 net 37 and 40, with Adam 56 and 64 (AMD EPYC).
    Compiled code compares in large graphs, where the time does not matter, and in graphs with custom operators, whose results can
    differ from their meta functions.
    """
    return not are_small(values) or any(map(_is_custom, graph.graph.nodes))


def _is_custom(node: Any) -> bool:
    """Return whether a node calls an operator that is not one of torch's."""
    target = node.target
    return type(target).__module__ == "torch._ops" and str(target).partition(".")[0] not in ("aten", "prims")
