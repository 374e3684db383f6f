"""Matrix products of two tensors.

The gradient of an operand is summed over the batch axes along which it was broadcast.
"""

import torch
from torch import Tensor

from funcnet.checks import check_gy
from funcnet.contract import Grads, Params, Rng, Shape
from funcnet.kernels import operands as kernels
from funcnet.layers.operands.arithmetic import Operands, Operation
from funcnet.value import frozen


@frozen
class MatMul(Operation):
    """Matrix product of two operands, with the rules of ``torch.matmul``: the axes before the last two are batch axes.

        y  = a b
        ga = gy bᵀ        gb = aᵀ gy

    Shape:
        (a (..., n, k), b (..., k, m)) → y (..., n, m); if a is a vector (k), y has no axis n; if b is one, y has no axis m

    Cache:
        The operands, not copied, and the shape of ``y``.

    Raises:
        ValueError: If the last axis of a does not match the second-to-last axis of b, or the batch axes do not broadcast.

    References:
        ``torch.matmul``.

    >>> MatMul()({}, (torch.ones(2, 3), torch.ones(3, 1)))
    tensor([[3.],
            [3.]])
    """

    batch_dependent = True

    def apply(self, params: Params, x: Operands, rng: Rng = None) -> tuple[Tensor, tuple[Operands, Shape]]:
        y = torch.matmul(*self.operands(params, x))
        return y, (x, tuple(y.shape))

    def vjp(self, params: Params, cache: tuple[Operands, Shape], gy: Tensor) -> tuple[Grads, Operands]:
        (a, b), of = cache
        gy = check_gy(self, gy, of, a)
        rows, columns = a.unsqueeze(0) if a.dim() == 1 else a, b.unsqueeze(1) if b.dim() == 1 else b
        gy = gy.unsqueeze(-2) if a.dim() == 1 and b.dim() > 1 else gy.unsqueeze(-1) if b.dim() == 1 else gy
        gy = gy.unsqueeze(-2) if a.dim() == 1 and b.dim() == 1 else gy
        ga = kernels.unbroadcast(torch.matmul(gy, columns.mT), tuple(rows.shape))
        gb = kernels.unbroadcast(torch.matmul(rows.mT, gy), tuple(columns.shape))
        return params, (ga.reshape(a.shape), gb.reshape(b.shape))

    def complaint(self, x: Operands) -> str:
        return "the last axis of a must match the second-to-last axis of b, and the axes before them must broadcast"
