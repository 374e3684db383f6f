"""FunctionalEmbedding: rows of a table that is part of x.

i (...) integers, w (rows, features), y (..., features).
"""

from typing import Any

import torch
from attrs import field, validators
from torch import Tensor

from funcnet.checks import Misfit, check_gy, floating_complaint, require_no_params
from funcnet.contract import Grads, Layer, Params, Rng
from funcnet.errors import whole_number
from funcnet.kernels.embedding import embedding_backward
from funcnet.value import frozen


@frozen
class FunctionalEmbedding(Layer):
    """Rows of a table, with the indices and the table as inputs.

        y     = w[i]                     x = (i, w)
        gw[r] = Σ gy where i = r
        gx    = (None, gw)

    Args:
        padding_idx: Row that gets no gradient, which makes the layer a surrogate; ``None`` for no such row.

    Shape:
        x, a pair of indices (...) and weight (rows, features) → y (..., features)

    Cache:
        ``x``, not copied.

    Raises:
        ValueError: If x is not a pair of an int32 or int64 tensor and a floating matrix.

    References:
        ``torch.nn.functional.embedding``.

    >>> FunctionalEmbedding()({}, (torch.tensor([1]), torch.tensor([[1.0], [2.0]])))
    tensor([[2.]])
    """

    padding_idx: int | None = field(default=None, validator=validators.optional(whole_number))

    @property
    def surrogate(self) -> bool:
        return self.padding_idx is not None

    def apply(self, params: Params, x: tuple[Tensor, Tensor], rng: Rng = None) -> tuple[Tensor, Any]:
        require_no_params(self, params)
        if self.complaint(x):
            raise Misfit
        return torch.embedding(x[1], x[0]), x

    def vjp(self, params: Params, cache: tuple[Tensor, Tensor], gy: Tensor) -> tuple[Grads, tuple[None, Tensor]]:
        indices, w = cache
        gy = check_gy(self, gy, (*indices.shape, w.shape[1]), w)
        padding = -1 if self.padding_idx is None else self.padding_idx % w.shape[0]
        return params, (None, embedding_backward(gy, indices, w.shape[0], padding))

    def complaint(self, x: Any) -> str | None:
        rule = "x must be a pair of an int64 or int32 tensor and a floating matrix"
        if not isinstance(x, tuple) or len(x) != 2 or floating_complaint(x[1]) or not isinstance(x[0], Tensor):
            return rule
        if x[0].is_nested or x[0].layout is not torch.strided or x[0].is_cpu is not x[1].is_cpu:
            return f"{rule}, dense and on one device"
        return None if x[0].dtype in (torch.int64, torch.int32) and x[1].dim() == 2 else rule
