"""Positional encodings: information about the step, for layers that treat all steps alike.

t is the step along the second-to-last axis, counted from ``offset``.
"""

from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet import initializers
from funcnet.checks import Misfit, axes_complaint, check_gy, floating_complaint, kind_of, require_floating
from funcnet.contract import Cache, Grads, Layer, Params, Rng
from funcnet.errors import flag, number, size, valid_if, value_error, whole
from funcnet.initializers.elementary import Initializer
from funcnet.layers.attention.masks import broadcasts_to
from funcnet.random.keys import Key, as_key
from funcnet.value import frozen

_positive = number(above=0.0)


def _angles(t: Tensor, count: int, dim: int, base: float, dtype: torch.dtype) -> Tensor:
    """Return t / base^(2i / dim) for i below ``count``, in float32 at least."""
    wide = torch.promote_types(dtype, torch.float32)
    i = torch.arange(count, dtype=torch.float64, device=t.device)
    return t.to(wide).unsqueeze(-1) * (base ** (-2 * i / dim)).to(wide)


@frozen
class RotaryEmbedding(Layer):
    """Rotate each pair of features by an angle proportional to the step: q · k then depends only on the distance of the steps.

        (y₁, y₂)   = (x₁ cos a - x₂ sin a, x₁ sin a + x₂ cos a)         a = t / base^(2i / dim) for pair i
        (gx₁, gx₂) = (gy₁ cos a + gy₂ sin a, gy₂ cos a - gy₁ sin a)

    Args:
        dim: Number of features, an even number.
        base: Base of the angles; with larger values the features rotate more slowly.
        interleaved: Whether the pairs are the neighbours 2i and 2i + 1, instead of the features i and i + dim / 2.
        offset: The step of the first row.

    Shape:
        x (..., length, dim), or (x, steps) with whole numbers that broadcast to (..., length) → y (..., length, dim)

    Cache:
        cos a and sin a, (length, dim / 2), and the shape of ``x``.

    Raises:
        ValueError: If ``dim`` is odd.

    References:
        Su et al. 2021, eq. 34, for ``interleaved=True``; ``interleaved=False`` pairs the features as GPT-NeoX does.

    >>> RotaryEmbedding(2)({}, torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    tensor([[1.0000, 0.0000],
            [0.5403, 0.8415]])
    """

    dim: int = field(validator=[size, valid_if(lambda n: n % 2 == 0, "even")])
    base: float = field(default=10000.0, validator=_positive)
    interleaved: bool = field(default=False, validator=flag)
    offset: int = field(default=0, validator=whole(0))

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Tensor, Any]:
        x, steps = x if isinstance(x, tuple) and len(x) == 2 else (x, None)
        x = require_floating(self, params, x)
        if steps is not None and not (
            isinstance(steps, Tensor) and not steps.is_nested and broadcasts_to(steps.shape, x.shape[:-1])
        ):
            raise value_error(
                self, f"steps must be a tensor that broadcasts to the axes of x except the last, {tuple(x.shape[:-1])}", steps
            )
        t = torch.arange(self.offset, self.offset + x.shape[-2], device=x.device) if steps is None else steps + self.offset
        a = _angles(t, self.dim // 2, self.dim, self.base, x.dtype)
        cos, sin = torch.cos(a).to(x.dtype), torch.sin(a).to(x.dtype)
        shape = tuple(x.shape)
        return self._rotate(x, cos, sin), (cos, sin, shape) if steps is None else (cos, sin, shape, True)

    def vjp(self, params: Params, cache: Any, gy: Tensor) -> tuple[Grads, Any]:
        cos, sin, shape = cache[:3]
        gx = self._rotate(check_gy(self, gy, shape, cos), cos, -sin)
        return params, gx if len(cache) == 3 else (gx, None)

    def _rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        if self.interleaved:
            a, b = torch.unflatten(x, -1, (self.dim // 2, 2)).unbind(-1)
            return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)
        a, b = torch.unflatten(x, -1, (2, self.dim // 2)).unbind(-2)
        return torch.cat((a * cos - b * sin, a * sin + b * cos), -1)

    def complaint(self, x: Any) -> str | None:
        one = x[0] if isinstance(x, tuple) else x
        return floating_complaint(one) or axes_complaint(self, one, "..., length, dim")


@frozen
class SinusoidalPositions(Layer):
    """Add sines and cosines of the step, with wavelengths from 2π to 2π ``base``.

        y  = x + p        p[t, 2i] = sin(t / base^(2i / d)),  p[t, 2i + 1] = cos(t / base^(2i / d))
        gx = gy

    Args:
        base: Ratio of the longest wavelength to the shortest.
        offset: The step of the first row.

    Shape:
        x (..., length, features) → y (..., length, features)

    Cache:
        The shape of ``x``, and an empty tensor of its dtype.

    References:
        Vaswani et al. 2017, section 3.5.

    >>> SinusoidalPositions()({}, torch.zeros(2, 2))
    tensor([[0.0000, 1.0000],
            [0.8415, 0.5403]])
    """

    base: float = field(default=10000.0, validator=_positive)
    offset: int = field(default=0, validator=whole(0))

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Cache]:
        length, dim = require_floating(self, params, x).shape[-2:]
        t = torch.arange(self.offset, self.offset + length, device=x.device)
        a = _angles(t, (dim + 1) // 2, dim, self.base, x.dtype)
        p = torch.stack((torch.sin(a), torch.cos(a)), -1).flatten(-2)[:, :dim]
        return x + p.to(x.dtype), (tuple(x.shape), kind_of(x))

    def vjp(self, params: Params, cache: Cache, gy: Tensor) -> tuple[Grads, Tensor]:
        return params, check_gy(self, gy, *cache)

    def complaint(self, x: Tensor) -> str | None:
        return floating_complaint(x) or axes_complaint(self, x, "..., length, features")


@frozen
class LearnedPositions(Layer):
    """Add a learned vector to each step.

        y  = x + w[:length]
        gx = gy        gw[t] = Σ gy over the batch, 0 for the steps after the last

    Args:
        max_length: Largest number of steps.
        dim: Number of features.
        initializer: Initializer of ``weight``, by name or value; the default is the same as in ``torch.nn.Embedding``.

    Shape:
        x (..., length, dim), length at most max_length → y (..., length, dim)

    Params:
        weight: (max_length, dim), standard normal.

    Cache:
        The shape of ``x``, and an empty tensor of its dtype.

    Raises:
        ValueError: If x is longer than ``max_length``.

    References:
        Gehring et al. 2017, section 3.1.

    >>> layer = LearnedPositions(10, 4)
    >>> layer(layer.init(0), torch.zeros(2, 3, 4)).shape
    torch.Size([2, 3, 4])
    """

    max_length: int = field(validator=size)
    dim: int = field(validator=size)
    initializer: str | Initializer = field(default="normal", validator=initializers.known)

    def init(self, rng: Key | int) -> Params:
        return initializers.weight_and_bias(as_key(rng), self.param_shapes(), self.initializer)

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Cache]:
        w, (length, dim) = params["weight"], x.shape[-2:]
        if w.shape != (self.max_length, dim) or dim != self.dim or len(params) != 1 or w.dtype != x.dtype or length > len(w):
            raise Misfit
        return x + w[:length], (tuple(x.shape), kind_of(x))

    def vjp(self, params: Params, cache: Cache, gy: Tensor) -> tuple[Grads, Tensor]:
        return self._weight_grad(check_gy(self, gy, *cache)), gy

    def grads(self, params: Params, cache: Cache, gy: Tensor) -> Grads:
        return self._weight_grad(check_gy(self, gy, *cache))

    def input_grad(self, params: Params, cache: Cache, gy: Tensor) -> Tensor:
        return check_gy(self, gy, *cache)

    def _weight_grad(self, gy: Tensor) -> Params:
        length = gy.shape[-2]
        return {"weight": torch.constant_pad_nd(gy.sum_to_size(length, self.dim), (0, 0, 0, self.max_length - length))}

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"weight": (self.max_length, self.dim)}

    def complaint(self, x: Tensor) -> str | None:
        rule = floating_complaint(x) or axes_complaint(self, x, "..., length, dim")
        too_long = not rule and x.shape[-2] > self.max_length
        return f"x must not be longer than max_length={self.max_length}" if too_long else rule
