"""Attention as a formula, for transforms of ``torch.func`` and for keyed dropout, which torch's fused kernels do not support.

w = softmax(q kᵀ scale + mask)      y = dropout(w) v
"""

import math
from collections.abc import Callable
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (its usual name)

from funcnet.kernels.private_names import constant

Dropout = Callable[[Tensor, float], Tensor]


class without_fused_attention:  # noqa: N801 (called as a context by ``with``)
    """Context manager in which ``nn.TransformerEncoder`` and ``nn.MultiheadAttention`` use no kernels without a derivative."""

    def __enter__(self) -> None:
        self._before = _allow_fused_kernels(False)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        _allow_fused_kernels(self._before)


@constant  # torch's switch works while Dynamo traces, but cannot be traced itself
def _allow_fused_kernels(allowed: bool) -> bool:
    """Set the switch, and return its old value."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(allowed)
    return before


def attention(
    dropout: Dropout,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Compute ``F.scaled_dot_product_attention`` from its arguments; its masks are ``True`` where attention is allowed."""
    if enable_gqa:
        key, value = (x.repeat_interleave(query.shape[-3] // x.shape[-3], -3) for x in (key, value))
    scores = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None:
        scores = torch.where(attn_mask, scores, -math.inf) if attn_mask.dtype is torch.bool else scores + attn_mask
    weights = torch.softmax(scores, -1)
    return dropout(weights, dropout_p) @ value


def multi_head_attention(  # noqa: PLR0917 (torch's arguments)
    dropout: Dropout,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Compute ``F.multi_head_attention_forward`` from its arguments; its masks are ``True`` where attention is forbidden."""
    is_batched = query.dim() == 3
    inputs = [x if is_batched else x.unsqueeze(1) for x in (query, key, value)]
    weights = (q_proj_weight, k_proj_weight, v_proj_weight) if use_separate_proj_weight else _thirds(in_proj_weight)
    q, k, v = (F.linear(x, w, b) for x, w, b in zip(inputs, weights, _thirds(in_proj_bias), strict=True))
    k, v = (_longer(x, more) for x, more in ((k, bias_k), (v, bias_v)))
    q, k, v = (x.reshape(*x.shape[:2], num_heads, x.shape[2] // num_heads).permute(1, 2, 0, 3) for x in (q, k, v))
    if add_zero_attn:
        k, v = (F.pad(x, (0, 0, 0, 1)) for x in (k, v))
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    for mask in _masks(attn_mask, key_padding_mask, scores, is_batched):
        scores = scores + mask
    shares = dropout(torch.softmax(scores, -1), dropout_p if training else 0.0)
    y = F.linear((shares @ v).permute(2, 0, 1, 3).flatten(2), out_proj_weight, out_proj_bias)
    shares = shares.mean(1) if average_attn_weights else shares
    return (y, shares if need_weights else None) if is_batched else (y.squeeze(1), shares.squeeze(0) if need_weights else None)


def _thirds(x: Tensor | None) -> Any:
    return (None, None, None) if x is None else x.chunk(3)


def _longer(x: Tensor, more: Tensor | None) -> Tensor:
    """Append an entry to a sequence, if there is one."""
    return x if more is None else torch.cat((x, more.expand(1, x.shape[1], -1)))


def _masks(attn_mask: Tensor | None, key_padding_mask: Tensor | None, scores: Tensor, is_batched: bool) -> list[Tensor]:
    """Return both masks as numbers to add to the scores (N, heads, L, S); keys beyond the end of a mask are allowed."""
    masks = []
    if attn_mask is not None:
        by_head = attn_mask.dim() == 3
        masks.append(attn_mask.reshape(scores.shape[:2] + attn_mask.shape[1:]) if by_head else attn_mask)
    if key_padding_mask is not None:
        masks.append((key_padding_mask if is_batched else key_padding_mask[None])[:, None, None])
    added = [torch.where(mask, -math.inf, 0.0).to(scores.dtype) if mask.dtype is torch.bool else mask for mask in masks]
    return [F.pad(mask, (0, scores.shape[-1] - mask.shape[-1])) for mask in added]
