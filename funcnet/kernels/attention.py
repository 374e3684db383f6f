"""Kernels of attention. Times are for forward and backward of (8, 4, 64, 32): 8 rows of the batch, 4 heads, 64 steps.

The flash kernel does not store the matrix of queries by keys, so its memory grows linearly with the length instead of
quadratically. It takes 1.1 ms, and the formula 6.3; for (2, 2, 8, 8) 21 µs and 39. ALiBi, passed to the flash kernel as a bias,
takes 1.1 times as long as attention without a bias. A soft cap, which needs the formula, takes 1.6 times as long.

In half precision the flash kernel is not always fastest: its products of small matrices take longer than in float32. Times in ms
on one core of an AMD EPYC with AVX512-BF16, causal. Each pair is half precision, then a cast to float32 and back:

                      bfloat16                        float16
                      forward        backward         forward        backward
    (8, 4, 32, 16)    0.12   0.08    1.7    0.2       0.19   0.09    0.8    0.2
    (8, 4, 128, 32)   1.4    1.2     7.9    2.6       3.1    1.3     18     2.8
    (16, 4, 64, 64)   1.5    1.6     8.2    5.2       2.7    1.3     17     3.0
    (8, 4, 128, 64)   2.3    2.7     9.4    7.6       4.8    2.1     33     4.7
    (4, 4, 256, 64)   3.5    3.5     8.3    8.0       6.4    3.5     61     8.1
    (2, 4, 512, 64)   6.6    6.6     13.1   15.7      12.4   6.6     151    15.6

Hence float16 is always computed in float32. bfloat16 is computed in float32 only in the backward pass of short sequences, unless
``attention_products`` computes that pass.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from funcnet.kernels import attention_products as by_products
from funcnet.kernels import private_names as torchs
from funcnet.kernels.activation import softmax_backward, tanh, tanh_backward
from funcnet.kernels.choices import NEVER, choice
from funcnet.kernels.operands import unbroadcast
from funcnet.kernels.private_names import is_batched
from funcnet.kernels.tracing import is_differentiated
from funcnet.precision import in_single, rounded

ATTENTION = choice("attention", {"formula": NEVER, "flash": 0}, lambda cpu: 0)
"""Whether to use the flash kernel where it supports the arguments."""

FLOAT16 = choice("attention in float16", {"float16": NEVER, "float32": 0}, lambda cpu: 0)
"""Whether to cast float16 to float32 for the flash kernel."""

BFLOAT16 = choice(
    "backward attention in bfloat16", {"float32": NEVER, "bfloat16": 0}, lambda cpu: 8193, "numbers in a head's keys"
)
"""Number of elements of a head's keys from which the flash kernel's backward pass uses bfloat16 instead of float32."""

_flash: Callable[..., tuple[Tensor, Tensor]] = torchs.flash
_flash_backward: Callable[..., tuple[Tensor, Tensor, Tensor]] = torchs.flash_backward
_HAS_FLASH = None not in (_flash, _flash_backward)


def flashes(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None) -> bool:
    """Return whether the flash kernel supports these tensors: in main memory, with 4 axes, equal head sizes and no empty axis.

    It is also used on the meta device, so that a summary shows the memory of a step on the CPU. It is not used under ``vmap``,
    which would call it once per entry and warn, or under differentiation, since its backward has no derivative.
    """
    given = (q, k, v) if allowed is None else (q, k, v, allowed)
    fits = (
        q.dim() == 4 and (q.is_cpu or q.is_meta) and q.shape[-1] == v.shape[-1] and q.shape[1] % k.shape[1] == 0
        if k.dim() == 4
        else False
    )
    mapped = any([x.numel() == 0 or is_batched(x) for x in given])  # noqa: C419
    return _HAS_FLASH and ATTENTION.value == 0 and fits and not mapped and not is_differentiated(*given)


def flashes_back(gy: Tensor, *qkv: Tensor) -> bool:
    """Return whether the flash kernel's backward may be used: it has no derivative, and ``vmap`` would call it once per gy.

    For 64 gys at once, as in a Jacobian, the formula takes 0.45 times as long as those calls with 8 steps, and as long with 64.
    """
    return not is_differentiated(gy, *qkv) and not any([is_batched(x) for x in (gy, *qkv)])  # noqa: C419


def _dense(x: Tensor) -> Tensor:
    """Make the last axis contiguous, which the flash kernel assumes without checking."""
    return x if x.stride(-1) == 1 else x.contiguous()


def visible_bias(allowed: Tensor | None, bias: Tensor | None, like: Tensor) -> Tensor | None:
    """Return the bias of the flash kernel, with 4 axes: ``bias`` or 0, and -∞ for keys that are not allowed.

    The kernel accepts a float32 bias even with queries in half precision.
    """
    if allowed is not None:
        bias = torch.where(allowed, torch.zeros_like(allowed, dtype=like.dtype) if bias is None else bias, -torch.inf)
    return None if bias is None else bias.reshape((1,) * (4 - bias.dim()) + tuple(bias.shape))


def flash(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    """Return y and the log Σ eˢ of each row; y is 0 in rows without an allowed key."""
    like = q
    if q.dtype is k.dtype is v.dtype is torch.float16 and FLOAT16.value == 0:
        q, k, v, bias = q.float(), k.float(), v.float(), _bias_in_single(bias)
    y, lse = _flash(_dense(q), _dense(k), _dense(v), 0.0, causal, attn_mask=bias, scale=scale)
    y = y if type(y) is Tensor else y.contiguous()  # strides of a DTensor can differ from its shard's, and views then fail
    return rounded(y, like), lse


def flash_backward(
    gy: Tensor, qkv: tuple[Tensor, Tensor, Tensor], y: tuple[Tensor, Tensor], bias: Tensor | None, causal: bool, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q, k and v, from y and its log Σ eˢ."""
    if by_products.serves(qkv[0], qkv[1], bias):
        return by_products.backward(gy, *qkv, causal, scale)
    if _is_quicker_in_single(qkv[1]):
        single, out = (in_single(qkv[0]), in_single(qkv[1]), in_single(qkv[2])), in_single(y[0])
        gq, gk, gv = flash_backward(in_single(gy), single, (out, y[1]), _bias_in_single(bias), causal, scale)
        return rounded(gq, qkv[0]), rounded(gk, qkv[1]), rounded(gv, qkv[2])
    q, k, v = map(_dense, qkv)
    return _flash_backward(_dense(gy), q, k, v, *y, 0.0, causal, attn_mask=bias, scale=scale)


def alibi_bias(heads: int, steps: Tensor, keys: Tensor, dtype: torch.dtype) -> Tensor:
    """Return -m |i - j| for the slope m of each head and queries and keys at these steps, (heads, L, S), in float32 at least.

    If the number of heads is a power of 2, the slopes are 2^(-8 h / heads), h = 1, 2, ... For n heads beyond a power of 2, the
    first n of the slopes between these are appended.
    """
    n = 1 << (heads.bit_length() - 1)
    slopes = [2.0 ** (-8 * h / n) for h in range(1, n + 1)] + [2.0 ** (-4 * h / n) for h in range(1, 2 * n, 2)]
    m = torch.tensor(slopes[:heads], dtype=torch.promote_types(dtype, torch.float32), device=steps.device)
    return -m.reshape(-1, 1, 1) * (steps.unsqueeze(1) - keys).abs()


def _bias_in_single(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else in_single(bias)


def _is_quicker_in_single(k: Tensor) -> bool:
    if k.dtype is not torch.bfloat16:
        return k.dtype is torch.float16 and FLOAT16.value == 0
    size = k.shape[-2] * k.shape[-1]
    return type(size) is int and size < BFLOAT16.value  # not for a symbol, in a program exported for any length


def _joined(x: Tensor, groups: Tensor) -> Tensor:
    """Stack the rows of heads that share one head of ``groups``."""
    heads = groups.shape[-3] if groups.dim() > 2 else 1
    if x.dim() == 2 or x.shape[-3] == heads:
        return x
    return x.reshape(*x.shape[:-3], heads, x.shape[-3] // heads * x.shape[-2], x.shape[-1])


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Multiply each head of a by the corresponding head of b, or by the head of its group."""
    return torch.matmul(_joined(a, b), b).reshape(*a.shape[:-1], b.shape[-1])


def _scores(q: Tensor, k: Tensor, scale: float) -> Tensor:
    return _product(in_single(q) * scale, in_single(k).mT)


def weights(
    q: Tensor, k: Tensor, bias: Tensor | None, allowed: Tensor | None, scale: float, soft_cap: float | None = None
) -> Tensor:
    """Return the softmax of q kᵀ · scale + bias over the allowed keys, in float32 at least; 0 in rows without an allowed key.

    ``soft_cap`` bounds the scores before the bias is added. In half precision the sum of a score and a bias of -100 would be
    rounded to a multiple of ½, and y would be off by 0.17.
    """
    s = _scores(q, k, scale)
    s = s if soft_cap is None else tanh(s / soft_cap) * soft_cap
    s = s if bias is None else s + bias
    s = s if allowed is None else s.masked_fill(~allowed, -torch.inf)
    if (bias is None and allowed is None) or s.shape[-1] == 0:
        return torch.softmax(s, -1)
    blind = s.amax(-1, keepdim=True) == -torch.inf
    s = s.masked_fill(blind, 0.0) if is_differentiated(s) else s  # the derivative of a NaN softmax is NaN
    return torch.softmax(s, -1).masked_fill(blind, 0.0)


def weighted(p: Tensor, v: Tensor) -> Tensor:
    """Return the weighted sum of the values, computed in the dtype of the weights and rounded once."""
    return rounded(_product(p, v.to(p.dtype)), v)


def weights_grad(gy: Tensor, v: Tensor) -> Tensor:
    """Return the gradient of the attention weights, in float32 at least."""
    return _product(in_single(gy), in_single(v).mT)


def values_grad(gy: Tensor, p: Tensor, v: Tensor) -> Tensor:
    """Return the gradient of the values, summed over the heads of a group."""
    return rounded(torch.matmul(_joined(p, v).mT, _joined(in_single(gy), v)), v)


def scores_grads(
    gp: Tensor, p: Tensor, q: Tensor, k: Tensor, bias: Tensor | None, scale: float, soft_cap: float | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the gradients of q, k and bias from the gradient of the weights, rounded once.

    The derivative of a soft cap is recomputed from q and k: keeping it would double the memory per pair of query and key.
    """
    gs = softmax_backward(gp, p, -1, p.dtype)
    gbias = None if bias is None else rounded(unbroadcast(gs, tuple(bias.shape)), bias)
    if soft_cap is not None:
        gs = tanh_backward(gs, tanh(_scores(q, k, scale) / soft_cap))
    gk = torch.matmul(_joined(gs, k).mT, _joined(in_single(q) * scale, k))
    return rounded(_product(gs, in_single(k)) * scale, q), rounded(gk, k), gbias
