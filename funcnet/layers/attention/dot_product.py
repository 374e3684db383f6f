"""Scaled dot-product attention: each output is a mean of the values, weighted by how well their keys match the query.

q (..., heads, L, E), k (..., heads, S, E), v (..., heads, S, Ev), y (..., heads, L, Ev); p (..., heads, L, S) are the weights.
With grouped queries, several heads of q share one head of k and v, whose gradients are summed over them. Dropout acts on p and
gp, after the softmax. If p is returned too, its gradient is added to gp.
"""

import math
from typing import Any

import torch
from attrs import field, validators
from torch import Tensor

from funcnet import random
from funcnet.checks import Misfit, check_gy, first_complaint, floating_complaint, require_arguments, require_key
from funcnet.contract import Cache, Grads, Layer, Params, Rng
from funcnet.errors import MOST, flag, is_whole, number, valid_if, value_error
from funcnet.kernels import attention as kernels
from funcnet.kernels.operands import masked_scale
from funcnet.layers.attention.masks import combine_masks, require_mask, steps_mask
from funcnet.precision import rounded
from funcnet.random.keys import Key, key_beside
from funcnet.value import frozen


def _is_window(value: Any) -> bool:
    pair = value if isinstance(value, tuple) else (value, value)
    return len(pair) == 2 and all(is_whole(n) and n >= 0 for n in pair)


_WINDOW = "a whole number of at least 0, or a pair of them, the steps before and after"

window_of_steps = validators.optional(valid_if(_is_window, _WINDOW, most=MOST))
"""Validator of a window: the numbers of steps before and after a query where it sees keys; ``None`` for all."""


def steps_around(window: int | tuple[int, int] | None, causal: bool) -> tuple[int | None, int | None]:
    """Return the numbers of steps before and after a query where it sees keys; ``None`` for all."""
    before, after = window if isinstance(window, tuple) else (window, window)
    return before, 0 if causal else after


def require_gy_pair(layer: Layer, gy: Any, like: Tensor, *shapes: tuple[int, ...]) -> tuple[Any, Any]:
    """Return the gradients of y and of the weights, after checking their shapes and dtypes; ``None`` means zeros."""
    found = [None if g is None else tuple(g.shape) for g in gy] if isinstance(gy, tuple) else []
    if len(found) != 2 or any(n not in (None, shape) for n, shape in zip(found, shapes, strict=True)):
        rule = f"gy must be a pair, for y {shapes[0]} and for the weights {shapes[1]}, or None for either"
        raise value_error(layer, rule, "shapes " + " and ".join(map(str, found)) if found else gy)
    for g, shape in zip(gy, shapes, strict=True):
        if g is not None:
            check_gy(layer, g, shape, like)
    return gy[0], gy[1]


@frozen
class ScaledDotProductAttention(Layer):
    """Attention on (q, k, v) or (q, k, v, mask), with the shapes of torch's ``scaled_dot_product_attention``.

        s  = scale q kᵀ + bias     p  = softmax(s) over the keys allowed     y  = p v
        gv = pᵀ gy                 gp = gy vᵀ                                gs = p ⊙ (gp - Σ gp ⊙ p)
        gq = scale gs k            gk = scale gsᵀ q                          gbias = Σ gs over the axes that were broadcast

    With a soft cap c the scores are s = c tanh(r / c) + bias, r = scale q kᵀ, and gs ⊙ (1 - tanh²(r / c)) replaces gs in gq and
    gk. ALiBi adds bias[h, i, j] = -m[h] |i - j| with the slopes m[h] = 2^(-8h / heads), h = 1 ... heads. If the number of heads
    is not a power of 2, the slopes are the n slopes for n heads, with n the next lower power of 2, then every other slope for 2n
    heads.

    A query that sees no key gives y = 0 and passes no gradient, as in torch.

    The CPU's flash kernel needs no memory proportional to L · S, except for a mask. It is used for 4 axes with E = Ev and a bool
    mask or none, without dropout, soft cap or ``return_weights``.

    Args:
        is_causal: Whether query i sees only the keys up to i, counted from the first key as in torch; can be combined with a
            mask.
        scale: Factor of the scores; ``None`` for 1 / √E.
        dropout_p: Probability of dropping a weight. It needs a key, except after ``inference()``.
        enable_gqa: Whether q can have a multiple of the heads of k and v.
        window: With ``w`` query i sees the keys from i - w to i + w, with ``(a, b)`` those from i - a to i + b, with ``None``
            all.
        return_weights: Whether the output is (y, p). ``vjp`` then takes a pair of gradients, each of which can be ``None``.
        alibi: Whether to lower each score by the distance between query and key times the slope of the head.
        soft_cap: Bound c of the absolute scores, applied before anything is added to them; ``None`` for no bound.

    Shape:
        q (..., heads, L, E), k (..., heads, S, E), v (..., heads, S, Ev) → y (..., heads, L, Ev). The mask broadcasts to
        (..., heads, L, S): bool, True where a query may see a key, or floating, added to the scores and with a gradient.

    Cache:
        The inputs, not copied; y and the logarithms of the rows' Σ eˢ with the flash kernel, otherwise p, in single precision at
        least, and the dropout mask.

    Raises:
        ValueError: If q, k, v and the mask do not fit together.

    References:
        Vaswani et al. 2017, eq. 1; Dao et al. 2022 for the kernel; Ainslie et al. 2023 for grouped queries; Press et al. 2022,
        section 3, for ALiBi; Gemma Team 2024, section 2, for the soft cap (50.0 there).

    >>> q, k = torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 2, 4)
    >>> ScaledDotProductAttention(is_causal=True)({}, (q, k, torch.tensor([[[[1.0], [3.0]]]]))).flatten()
    tensor([1., 2.])
    """

    is_causal: bool = field(default=False, validator=flag)
    scale: float | None = field(default=None, validator=validators.optional(number()))
    dropout_p: float = field(default=0.0, validator=number(0.0, at_most=1.0))
    enable_gqa: bool = field(default=False, validator=flag)
    window: int | tuple[int, int] | None = field(default=None, validator=window_of_steps)
    return_weights: bool = field(default=False, validator=flag)
    alibi: bool = field(default=False, validator=flag)
    soft_cap: float | None = field(default=None, validator=validators.optional(number(above=0.0)))

    @property
    def stochastic(self) -> bool:
        return self.dropout_p > 0

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        if self.stochastic:
            require_key(self, rng)
        q, k, v, mask = self._entries(params, x)
        allowed, bias, causal = self._visible(q, k, mask)
        plain = bias is None and self.soft_cap is None and not self.stochastic and not self.return_weights
        if plain and kernels.flashes(q, k, v, allowed):
            y, lse = kernels.flash(q, k, v, self._flash_bias(q, k, allowed), causal, self._scale(q))
            return y, (x, {"y": y, "lse": lse})
        p = self._weights(q, k, mask)
        keep = self.draw(key_beside(rng, p), tuple(p.shape)) if self.stochastic and rng is not None else None
        dropped = self._dropped(p, keep)
        y = kernels.weighted(dropped, v)
        return (y, rounded(dropped, q)) if self.return_weights else y, (x, {"p": p, "keep": keep})

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        x, kept = cache
        (q, k, v), mask = x[:3], x[3] if len(x) == 4 else None
        gy, gweights = self._pair(gy, q, k, v)
        scale = self._scale(q)
        if "lse" in kept and kernels.flashes_back(gy, q, k, v):
            allowed, _, causal = self._visible(q, k, mask)
            added, y = self._flash_bias(q, k, allowed), (kept["y"], kept["lse"])
            gx: tuple[Any, ...] = kernels.flash_backward(gy, (q, k, v), y, added, causal, scale)
            return params, gx if len(x) == 3 else (*gx, None)
        p, keep = kept["p"] if "p" in kept else self._weights(q, k, mask), kept.get("keep")
        gv = kernels.values_grad(gy, self._dropped(p, keep), v)
        gp = kernels.weights_grad(gy, v)
        gp = self._dropped(gp if gweights is None else gp + gweights, keep)
        bias = mask if mask is not None and mask.is_floating_point() else None
        gq, gk, gbias = kernels.scores_grads(gp, p, q, k, bias, scale, self.soft_cap)
        return params, (gq, gk, gv) if len(x) == 3 else (gq, gk, gv, gbias)

    def draw(self, rng: Key | int, shape: tuple[int, ...]) -> Tensor:
        """Draw the mask of the attention weights to keep.

        Args:
            rng: A key or an int seed.
            shape: The shape of the weights, (..., heads, L, S).

        Returns:
            A bool tensor, True with probability 1 - ``dropout_p``.
        """
        return random.bernoulli(rng, shape, 1 - self.dropout_p)

    def inference(self) -> Layer:
        return self.replace(dropout_p=0.0)

    def _pair(self, gy: Any, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the gradients of y and, if they are returned, of the weights."""
        shape = (*q.shape[:-1], v.shape[-1])
        if not self.return_weights:
            return check_gy(self, gy, shape, q), None
        gy, gweights = require_gy_pair(self, gy, q, shape, (*q.shape[:-1], k.shape[-2]))
        return q.new_zeros(shape) if gy is None else gy, gweights

    def _dropped(self, p: Tensor, keep: Tensor | None) -> Tensor:
        return p if keep is None else masked_scale(p, keep, 1 / (1 - self.dropout_p) if self.dropout_p < 1 else 0.0)

    def _scale(self, q: Tensor) -> float:
        return 1 / math.sqrt(max(q.shape[-1], 1)) if self.scale is None else self.scale

    def _weights(self, q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
        """Return the weights p."""
        allowed, bias, causal = self._visible(q, k, mask)
        if causal:
            allowed = steps_mask(q.shape[-2], k.shape[-2], (None, 0), q.device)
        bias = self._alibi(q, k, bias) if self.alibi else bias
        return kernels.weights(q, k, bias, allowed, self._scale(q), self.soft_cap)

    def _alibi(self, q: Tensor, k: Tensor, bias: Tensor | None) -> Tensor:
        """Return the bias added to the scores: the ALiBi bias (heads, L, S), plus a floating mask."""
        steps, keys = (torch.arange(one.shape[-2], device=q.device) for one in (q, k))
        added = kernels.alibi_bias(q.shape[-3] if q.dim() > 2 else 1, steps, keys, q.dtype)
        added = added if q.dim() > 2 else added[0]
        return added if bias is None else added + bias

    def _flash_bias(self, q: Tensor, k: Tensor, allowed: Tensor | None) -> Tensor | None:
        return kernels.visible_bias(allowed, self._alibi(q, k, None) if self.alibi else None, q)

    def _visible(self, q: Tensor, k: Tensor, mask: Tensor | None) -> tuple[Tensor | None, Tensor | None, bool]:
        """Return the bool mask, the bias added to the scores, and whether causality is the only other restriction."""
        bias = mask if mask is not None and mask.is_floating_point() else None
        mask = mask if bias is None else None
        if self.window is None and (not self.is_causal or (mask is None and bias is None and not self.alibi)):
            return mask, bias, self.is_causal
        local = steps_mask(q.shape[-2], k.shape[-2], steps_around(self.window, self.is_causal), q.device)
        return combine_masks(local, mask), bias, False

    def _entries(self, params: Params, x: Any) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Return q, k, v and the mask, after a check that they fit together: kernels would broadcast them."""
        require_arguments(self, params, x)
        q, k, v, *mask = x
        if not q.is_cpu is k.is_cpu is v.is_cpu:
            raise Misfit
        return q, k, v, require_mask(self, mask[0], (*q.shape[:-1], k.shape[-2]), q) if mask else None

    def complaint(self, x: Any) -> str | None:
        if not isinstance(x, tuple) or len(x) not in (3, 4):
            return "x must be a tuple (q, k, v) or (q, k, v, mask)"
        (q, k, v), rule = x[:3], first_complaint(*[floating_complaint(one) for one in x[:3]])
        if rule or not q.dtype == k.dtype == v.dtype:
            return rule or f"q, k and v must have the same dtype, not {q.dtype}, {k.dtype} and {v.dtype}"
        groups, divides = ("groups", ", groups a divisor of heads") if self.enable_gqa else ("heads", "")
        rule = f"q (..., heads, L, E), k (..., {groups}, S, E) and v (..., {groups}, S, Ev) must fit each other{divides}"
        return None if self._fit(q, k, v) else rule

    def _fit(self, q: Tensor, k: Tensor, v: Tensor) -> bool:
        """Return whether the shapes fit each other; with ``enable_gqa`` q can have more heads."""
        if q.dim() < 2 or q.shape[-1] != k.shape[-1] or k.shape[:-1] != v.shape[:-1]:
            return False
        if not self.enable_gqa or q.dim() == 2:
            return q.shape[:-2] == k.shape[:-2]
        return q.shape[:-3] == k.shape[:-3] and k.dim() > 2 and k.shape[-3] > 0 and q.shape[-3] % k.shape[-3] == 0
