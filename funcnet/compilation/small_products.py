"""Small matrix products in compiled code: loops for their exact sizes, in place of calls of a library.

A call of MKL's product costs 1 to 2 µs before it multiplies, and on AMD's processors it then runs MKL's plainest loops. The
loops here are one C++ template (``product_loops.h``), which holds a block of the result in registers. µs of x wᵀ, gy w and gyᵀ x
for x (rows, in) and w (out, in), in float32 on one core of an AMD EPYC with AVX-512:

    rows, in, out        MKL                    loops
    10, 20, 20           1.2   1.2   1.1        0.2   0.1   0.1
    100, 2, 25           2.3   5.1   2.4        0.3   0.7   0.2
    100, 25, 25          3.3   3.3   3.7        1.8   1.4   1.5
    64, 64, 64           6.7   6.7   6.7        6.8   4.6   4.6
    100, 128, 128        34    34    35         38    28    28

A pass over Inductor's graph puts an operator of ours in the place of each small ``mm``, ``addmm``, ``bmm`` and ``baddbmm``,
whichever layer or transform made it, and a lowering turns the operator into the loops.
"""

from typing import Any

import torch
from torch import Tensor

from funcnet.kernels.choices import NEVER, choice

SMALL = choice("small compiled products", {"loops": NEVER, "library": 0}, lambda cpu: 1 << 20, "multiplications")
"""From how many multiplications on compiled code calls a library for a product."""

DTYPES = {torch.float32: "float", torch.float64: "double"}

_KEPT = 1 << 16  # numbers on the stack: a transposed factor, and a transposed result

_aten = torch.ops.aten
_library = torch.library.Library("funcnet", "FRAGMENT")  # type: ignore[no-untyped-call]
_library.define("small_product(Tensor a, Tensor b, Tensor? addend) -> Tensor")  # type: ignore[no-untyped-call]


def _product(a: Tensor, b: Tensor, addend: Tensor | None) -> Tensor:
    y = torch.matmul(a, b)
    return y if addend is None else y + addend


_library.impl("small_product", _product, "CPU")  # type: ignore[no-untyped-call]
torch.library.register_fake(
    "funcnet::small_product", lambda a, b, addend: a.new_empty((*a.shape[:-1], b.shape[-1])), lib=_library
)


def replace_small_products(graph: Any) -> None:
    """Replace the small products of a graph of ``aten`` operators, in place."""
    for node in graph.nodes:
        operands = _operands(node)
        if operands is not None and _is_small(*[one.meta.get("val") for one in operands]):
            a, b, addend = (*operands, None)[:3]
            node.target, node.args, node.kwargs = torch.ops.funcnet.small_product.default, (a, b, addend), {}


def _operands(node: Any) -> tuple[Any, ...] | None:
    """Return the factors of a product and what is added to it; ``None`` for other nodes."""
    if node.target in (_aten.mm.default, _aten.bmm.default) and len(node.args) == 2:
        return tuple(node.args)
    if node.target in (_aten.addmm.default, _aten.baddbmm.default) and len(node.args) == 3:
        scaled = any(factor != 1 for factor in node.kwargs.values())
        return None if scaled else (*node.args[1:], node.args[0])
    return None


def _is_small(a: Any, b: Any, addend: Any = None) -> bool:
    """Tell whether the loops take a product: of fixed sizes, not empty, of one dtype, in main memory."""
    given = [a, b] if addend is None else [a, b, addend]
    if not all(isinstance(x, Tensor) and x.is_cpu and x.dtype is a.dtype and x.dtype in DTYPES for x in given):
        return False
    sizes = [*a.shape, b.shape[-1], *[size for x in given for size in x.stride()]]
    if not all(type(size) is int for size in sizes) or 0 in (*a.shape, b.shape[-1]):
        return False
    rows, inner, columns = *a.shape[-2:], b.shape[-1]
    return rows * inner * columns < SMALL.value and (inner + min(rows, columns)) * max(rows, columns) <= _KEPT


def product_options() -> dict[str, Any]:
    """Return the options of Inductor for small products; none in a release of torch whose Inductor lacks what they need.

    Loops over a product's result stay apart from the product: in its kernel they would gain nothing.
    """
    try:
        from funcnet.compilation.product_template import ProductPass
    except Exception:
        return {}
    return {"post_grad_custom_post_pass": ProductPass(), "epilogue_fusion": False}
