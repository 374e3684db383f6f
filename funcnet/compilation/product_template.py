"""Inductor's side of small products: a lowering of ``funcnet::small_product`` to a custom C++ kernel.

It uses private names of Inductor; ``inductor`` imports this module only if they exist.
"""

from importlib import import_module
from typing import Any

import torch

from funcnet.compilation import product_loops
from funcnet.kernels import small_products

_lowering: Any = import_module("torch._inductor.lowering")  # imported first, since the template modules import it circularly
_cpp: Any = import_module("torch._inductor.codegen.cpp")
_templates: Any = import_module("torch._inductor.codegen.cpp_template")
_passes: Any = import_module("torch._inductor.custom_graph_pass")
_ir: Any = import_module("torch._inductor.ir")

_CACHE_LINE = 64

Strides = tuple[int, int, int]
"""Strides along matrices, rows and columns; 0 along axes of size 1."""


class ProductPass(_passes.CustomGraphPass):  # type: ignore[misc]
    """The pass over Inductor's graph that replaces the small products.

    Its code and its threshold determine its result, and are therefore part of the key of Inductor's cache.
    """

    def __call__(self, graph: Any) -> None:
        small_products.replace_small_products(graph)

    def uuid(self) -> Any:
        files = (__file__, product_loops.__file__, small_products.__file__)
        return _passes.get_hash_for_files(files), small_products.limit()


class ProductTemplate(_templates.CppTemplate):  # type: ignore[misc]
    """The C++ kernel of a product, or of a batch of products with the same sizes."""

    def render(self, kernel: Any, template_buffer_node: Any = None, **_: Any) -> str:
        """Return the source of the kernel; equal sources share one kernel."""
        out = self.output_node if template_buffer_node is None else template_buffer_node
        names = ["a", "b", "addend"][: len(self.input_nodes)]
        head = kernel.def_kernel(inputs=dict(zip(names, self.input_nodes, strict=True)), outputs={"c": out})
        start = [f"&{kernel.index(node, [0] * len(node.get_size()))}" for node in self.input_nodes]
        inner = int(self.input_nodes[0].get_size()[-1])
        call = _loops([_steps(node) for node in self.input_nodes], _ints(out.get_size()), inner, start, out.get_dtype())
        include = "#include <torch/csrc/inductor/cpp_prefix.h>"
        return f'{include}\n{product_loops.SOURCE}\nextern "C" {_cpp.get_export_declaration()}\n{head}\n{{\n{call}\n}}\n'


def _ints(sizes: Any) -> list[int]:
    return [int(size) for size in sizes]


def _steps(node: Any) -> Strides:
    """Return the strides of an operand as if it had three axes."""
    size, stride = _ints(node.get_size()), _ints(node.get_stride())
    steps = [step if n > 1 else 0 for n, step in zip(size, stride, strict=True)]
    lead, rows, columns = [0, 0, 0, *steps][-3:]
    return lead, rows, columns


def _loops(steps: list[Strides], size: list[int], inner: int, start: list[str], dtype: torch.dtype) -> str:
    """Return C++ code that calls the loops for each matrix of the result."""
    matrices, rows, columns = [1, *size][-3:]
    (_, am, ak), (_, bk, bn), (_, dm, dn) = (*steps, (0, 0, 0))[:3]
    bn = 1 if columns == 1 else bn  # any stride is correct for a single column
    kind = small_products.DTYPES[dtype]
    adds = "true" if len(steps) == 3 else "false"
    loops = f"FuncnetProduct<{kind}, {rows}, {columns}, {inner}, {am}, {ak}, {bk}, {bn}, {adds}, {dm}, {dn}>"
    run = "run_turned" if _is_better_turned(rows, columns, inner, am, bn, _CACHE_LINE // dtype.itemsize) else "run"
    operands = [f"{first} + i * {step[0]}" for first, step in zip(start, steps, strict=True)]
    arguments = ", ".join([*operands, *["nullptr"] * (3 - len(steps)), f"c + i * {rows * columns}"])
    return f"for (int64_t i = 0; i < {matrices}; i++) {loops}::{run}({arguments});"


def _is_better_turned(rows: int, columns: int, inner: int, am: int, bn: int, lanes: int) -> bool:
    """Return whether the transposed product takes fewer operations, including the copies."""

    def cost(m: int, n: int, step: int) -> int:
        return m * -(-n // lanes) * inner + (0 if step == 1 else n * inner)

    return cost(columns, rows, am) + 2 * rows * columns < cost(rows, columns, bn)


def _in_memory(x: Any) -> Any:
    """Have Inductor write an operand to memory, in the order of what it is computed from: its loop then transposes nothing.

    The nets of an ensemble keep features before rows. A step of 20 nets of 2-25-25-25-2 takes 0.72 of the time with their
    gradients in rows.
    """
    buffer = x.data
    while isinstance(buffer, _ir.BaseView):
        buffer = buffer.data
    if isinstance(buffer, _ir.StorageBox):
        buffer.realize()
        buffer.data.decide_layout()
    node = _ir.ExternKernel.realize_input(x)
    node.freeze_layout()
    return node


def _lowered(a: Any, b: Any, addend: Any) -> Any:
    """Lower the operator: Inductor writes its operands to memory, and the kernel reads them there."""
    nodes = [_in_memory(x) for x in (a, b, addend) if x is not None]
    size = [*nodes[0].get_size()[:-1], nodes[1].get_size()[-1]]
    layout = _ir.FixedLayout(nodes[0].get_device(), nodes[0].get_dtype(), size)
    template = ProductTemplate("small_product", nodes, layout, num_threads=1)
    return template.generate().output_node()


_lowering.register_lowering(small_products.OPERATOR, type_promotion_kind=None)(_lowered)
