"""Attention's backward pass in bfloat16 with matrix products, in blocks of queries.

Torch's flash kernel multiplies small tiles, for which the bfloat16 instructions have too much overhead. Here one batched product
computes a block of 128 queries for all heads: scores and softmax are float32, the other four products are bfloat16. With causal
attention a block multiplies only the keys up to its end. The memory for the scores of a block is proportional to the number of
keys.

Milliseconds on one core of an AMD EPYC with AVX512-BF16, shared with other work:

    (N, heads, L, E)               flash      flash in float32    products
    (8, 4, 64, 32)                 4.5        0.8                 0.8
    (4, 8, 64, 64), causal         6.1        1.4                 1.2
    (8, 4, 128, 64), causal        14.6       5.5                 4.1
    (8, 4, 128, 64)                12.6       5.8                 4.0
    (4, 2, 256, 128), causal       8.7        8.4                 4.8
    (2, 4, 512, 64), causal        17.8       19.8                13.2
    (1, 2, 2048, 64), causal       52.4       71.2                63.2

Hence products are used from 8 million multiplications of queries by keys, for up to 512 keys.
"""

import torch
from torch import Tensor

from funcnet.kernels.activation import softmax_backward
from funcnet.kernels.choices import NEVER, choice

_BLOCK = 128
_MOST_KEYS = 512

Gradients = tuple[Tensor, Tensor, Tensor]

BACKWARD = choice(
    "products of backward attention",
    {"flash": NEVER, "products": 0},
    lambda cpu: 8_000_000 if cpu.bf16 else NEVER,
    "multiplications of queries by keys",
)
"""Number of multiplications from which the backward pass in bfloat16 uses matrix products."""


def serves(q: Tensor, k: Tensor, bias: Tensor | None) -> bool:
    """Return whether to use products: for bfloat16 with few keys and known sizes.

    The flash kernel computes attention with a bias or grouped heads.
    """
    (n, heads, length, size), keys = q.shape, k.shape[2]
    if q.dtype is not torch.bfloat16 or k.dtype is not q.dtype or bias is not None or k.shape[1] != heads:
        return False
    count = n * heads * length * keys * size  # a symbol while a program is exported for any batch
    return type(count) is int and count >= BACKWARD.value and keys <= _MOST_KEYS


def backward(gy: Tensor, q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float) -> Gradients:
    """Return the gradients of q, k and v, (N, heads, steps, E)."""
    flat = [x.reshape(-1, *x.shape[2:]) for x in (gy, q, k, v)]
    blocks = [_block(flat, start, causal, scale) for start in range(0, q.shape[2], _BLOCK)]
    gq, gk, gv = blocks[0] if len(blocks) == 1 and blocks[0][1].shape[1] == k.shape[2] else _joined(blocks, k)
    return gq.reshape(q.shape), gk.reshape(k.shape), gv.reshape(v.shape)


def _block(operands: list[Tensor], start: int, causal: bool, scale: float) -> Gradients:
    """Return the gradients of a block of queries, and its contributions to the gradients of the keys and values that it sees.

    ``operands`` are gy, q, k and v, (heads, steps, E).
    """
    gy, q, k, v = operands
    end = min(start + _BLOCK, q.shape[1])
    q, gy = q[:, start:end], gy[:, start:end]
    k, v = (k[:, :end], v[:, :end]) if causal else (k, v)
    p = torch.softmax(_scores(q, k, start if causal else None, scale), -1)
    gv = torch.bmm(p.to(v.dtype).mT, gy)
    gp = torch.bmm(gy, v.mT).to(p.dtype)
    gs = softmax_backward(gp, p, -1, p.dtype).mul_(scale).to(q.dtype)
    return torch.bmm(gs, k), torch.bmm(gs.mT, q), gv


def _scores(q: Tensor, k: Tensor, start: int | None, scale: float) -> Tensor:
    """Return q kᵀ · scale in float32; the first query is at step ``start`` and sees no later key, or all keys if ``None``."""
    q, k = q.float(), k.float()
    if start is None:
        return torch.bmm(q, k.mT).mul_(scale)
    hidden = q.new_full((q.shape[1], k.shape[1]), -torch.inf).triu_(start + 1)
    return torch.baddbmm(hidden, q, k.mT, alpha=scale)


def _joined(blocks: list[Gradients], k: Tensor) -> Gradients:
    """Concatenate the gradients of queries; sum those of keys and values, which cover only the first keys, in float32."""
    gk, gv = (k.new_zeros((k.shape[0] * k.shape[1], *k.shape[2:]), dtype=torch.float32) for _ in range(2))
    for _, one, other in blocks:
        gk[:, : one.shape[1]] += one
        gv[:, : other.shape[1]] += other
    return torch.cat([block[0] for block in blocks], 1), gk.to(k.dtype), gv.to(k.dtype)
