"""Formulas, by operation, for what torch's ONNX exporter lacks or translates incorrectly (torch 2.13.0).

The exporter ignores ``input_scale`` of ``elu``, which makes CELU a different function. It writes log sigmoid as the logarithm of
a sigmoid, which is -∞ below -88, and attention with grouped heads as a product of incompatible shapes. It lacks ``hypot``, and
squeezes axes with more than one element, which runtimes reject.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from funcnet.kernels import attention
from funcnet.kernels import private_names as torchs

_aten = torch.ops.aten


def _elu(x: Tensor, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Tensor:
    return torch.where(x > 0, x * scale, ((torch.clamp_max(x, 0.0) * input_scale).exp() - 1) * (alpha * scale))


def _celu(x: Tensor, alpha: float = 1.0) -> Tensor:
    return _elu(x, alpha, 1, 1 / alpha)


def _log_sigmoid(x: Tensor) -> Tensor:
    return torch.clamp_max(x, 0.0) - torch.log(1 + torch.exp(-x.abs()))


def _log_sigmoid_forward(x: Tensor) -> tuple[Tensor, Tensor]:
    return _log_sigmoid(x), x.new_zeros(0)


def _hypot(x: Tensor, y: Tensor) -> Tensor:
    """Return √(x² + y²) without intermediate overflow: the larger of the two times √(1 + (smaller / larger)²)."""
    x, y = torch.broadcast_tensors(x.abs(), y.abs())  # type: ignore[no-untyped-call]
    large, small = torch.maximum(x, y), torch.minimum(x, y)
    ratio = small / torch.where(large == 0, 1.0, large)
    return large * torch.sqrt(1 + ratio * ratio)


def _squeeze(x: Tensor, dim: int) -> Tensor:
    return _aten.squeeze.dims(x, [dim]) if x.dim() and x.shape[dim] == 1 else x.clone()


def _flash(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    attn_mask: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Return attention, and a dummy instead of log Σ eˢ, which only a backward pass reads."""
    allowed = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril() if is_causal else None
    p = attention.weights(q, k, attn_mask, allowed, 1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    return attention.weighted(p, v), p.amax(-1)


ONNX_FORMS: dict[Any, Callable[..., Any]] = {
    _aten.elu.default: _elu,
    _aten.celu.default: _celu,
    _aten.log_sigmoid.default: _log_sigmoid,
    _aten.log_sigmoid_forward.default: _log_sigmoid_forward,
    _aten.hypot.default: _hypot,
    _aten.squeeze.dim: _squeeze,
    **({} if torchs.flash is None else {torchs.flash: _flash}),
}
"""The formulas, as a table for ``ExportedProgram.run_decompositions``."""
