"""Small matrix products in compiled code: loops for their exact sizes instead of library calls.

A call of MKL's product takes 1 to 2 µs before it multiplies, and on AMD processors MKL then runs its slowest loops. The loops
here are one C++ template (``compilation.product_loops``), which keeps a block of the result in registers. µs of x wᵀ, gy w and
gyᵀ x for x (rows, in) and w (out, in), in float32 on one core of an AMD EPYC with AVX-512:

    rows, in, out        MKL                    loops
    10, 20, 20           1.2   1.2   1.1        0.2   0.1   0.1
    100, 2, 25           2.3   5.1   2.4        0.3   0.7   0.2
    100, 25, 25          3.3   3.3   3.7        1.6   1.5   1.5
    64, 64, 64           6.7   6.7   6.7        4.8   4.6   4.6
    100, 128, 128        34    34    35         29    28    28

A scanned step of the 2-25-25-25-2 net takes 0.44 times as long as with MKL's products, a compiled one 0.63 times. The alternative
for products of up to 4096 multiplications, sums that Inductor fuses with their neighbors, is slower too: a step of five layers of
20 with batch norm, in batches of 10, takes 22 µs scanned and 75 compiled with these loops, and 42 and 86 with sums.

A pass over Inductor's graph replaces each small ``mm``, ``addmm``, ``bmm`` and ``baddbmm`` with a custom operator, whichever
layer or transform it comes from, and a lowering turns the operator into the loops.
"""

from typing import Any

import torch
from torch import Tensor

from funcnet.kernels.choices import NEVER, choice

SMALL = choice(
    "small compiled products",
    {"loops": NEVER, "library": 0},
    lambda cpu: 1 << 23 if cpu.maker == "amd" and cpu.avx512 else SHARED,
    "multiplications",
)
"""Number of multiplications from which compiled code calls a library for a product; at most ``SHARED`` with several threads.

On AMD processors with AVX-512 the loops reach 100 to 117 of 118 GFLOP/s for 256×64 by 64×256, 256×256 by 256×64 and 64×256 by
256×256. MKL's kernel reaches 104, and its copies add an eighth of the time: 100 residual blocks of width 64, in batches of 256,
take 88.8 ms with the loops and 101.8 with MKL (AMD EPYC, Zen 4). From 8 million multiplications on oneDNN is faster.
"""

SHARED = 1 << 20
"""Number of multiplications from which several threads share a product; the loops use one thread."""

DTYPES = {torch.float32: "float", torch.float64: "double"}

_KEPT = 1 << 19  # bytes on the stack, for a transposed factor, in whole vectors, and a transposed result
_VECTOR = 16  # the largest number of elements in a vector

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

OPERATOR = torch.ops.funcnet.small_product.default


def replace_small_products(graph: Any) -> None:
    """Replace the small products of a graph of ``aten`` operators, in place."""
    for node in graph.nodes:
        operands = _operands(node)
        if operands is not None and _is_small(*[one.meta.get("val") for one in operands]):
            a, b, addend = (*operands, None)[:3]
            node.target, node.args, node.kwargs = OPERATOR, (a, b, addend), {}


def _operands(node: Any) -> tuple[Any, ...] | None:
    """Return the factors of a product and its addend; ``None`` for other nodes."""
    if node.target in (_aten.mm.default, _aten.bmm.default) and len(node.args) == 2:
        return tuple(node.args)
    if node.target in (_aten.addmm.default, _aten.baddbmm.default) and len(node.args) == 3:
        scaled = any(factor != 1 for factor in node.kwargs.values())
        return None if scaled else (*node.args[1:], node.args[0])
    return None


def _is_small(a: Any, b: Any, addend: Any = None) -> bool:
    """Return whether the loops support a product: not empty, of fixed sizes and one dtype, in main memory."""
    given = [a, b] if addend is None else [a, b, addend]
    if not all(isinstance(x, Tensor) and x.is_cpu and x.dtype is a.dtype and x.dtype in DTYPES for x in given):
        return False
    sizes = [*a.shape, b.shape[-1], *[size for x in given for size in x.stride()]]
    if not all(type(size) is int for size in sizes) or 0 in (*a.shape, b.shape[-1]):
        return False
    rows, inner, columns = int(a.shape[-2]), int(a.shape[-1]), int(b.shape[-1])
    wide = -(-max(rows, columns) // _VECTOR) * _VECTOR
    kept = (inner * wide + rows * columns) * int(a.element_size())
    return rows * inner * columns < limit() and kept <= _KEPT


def limit() -> int:
    """Return the number of multiplications from which products that are compiled now call a library; 0 without loops."""
    return SMALL.value if SMALL.value == NEVER or torch.get_num_threads() == 1 else min(SMALL.value, SHARED)
