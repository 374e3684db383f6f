"""Normalization of the channels of x (N, channels, ...) with statistics and weights that are inputs too.

γ, β, μ and σ² are (channels,). Sums run over rows and positions; r = 1 / √(σ² + ε).
"""

from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet.checks import Misfit, check_gy, floating_complaint, require_dense_floating, require_no_params
from funcnet.contract import Grads, Layer, Params, Rng, Shape
from funcnet.errors import number, size_or_none
from funcnet.precision import in_single, rounded
from funcnet.value import frozen


def _along_channels(w: Tensor, x: Tensor) -> Tensor:
    """Reshape one number per channel so that it broadcasts against x."""
    return in_single(w).reshape(-1, *[1] * (x.dim() - 2))


def _sum(g: Tensor) -> Tensor:
    """Sum over all axes except the channels."""
    return g.sum([i for i in range(g.dim()) if i != 1])


@frozen
class _OfChannels(Layer):
    """Base of layers with the inputs x and vectors of one number per channel."""

    def checked(self, params: Params, x: Any, counts: tuple[int, ...]) -> tuple[Tensor, ...]:
        """Return the tensors of x, after checking that they fit together."""
        require_no_params(self, params)
        if not isinstance(x, tuple) or len(x) not in counts or any([floating_complaint(one) for one in x]):  # noqa: C419
            raise Misfit
        given, *vectors = x
        if given.dim() < 2 or any([v.shape != given.shape[1:2] or v.dtype is not given.dtype for v in vectors]):  # noqa: C419
            raise Misfit
        return x

    def complaint(self, x: Any) -> str | None:
        return "x must be a tuple of x (N, channels, ...) and vectors (channels,), all of one floating dtype"


@frozen
class ChannelAffine(_OfChannels):
    """Scale and shift each channel with vectors that are part of the input; the shift is optional.

        y  = γ x + β
        gx = γ gy      gγ = Σ gy x      gβ = Σ gy

    Shape:
        (x (N, channels, ...), weight (channels,)) or (x, weight, bias (channels,)) → y (N, channels, ...)

    Cache:
        The tensors of x, not copied.

    Raises:
        ValueError: If the tensors do not fit together.

    References:
        The affine part of ``torch.nn.functional.batch_norm``.

    >>> ChannelAffine()({}, (torch.ones(1, 2), torch.tensor([2.0, 3.0])))
    tensor([[2., 3.]])
    """

    def apply(self, params: Params, x: tuple[Tensor, ...], rng: Rng = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        given, w, *b = self.checked(params, x, (2, 3))
        y = in_single(given) * _along_channels(w, given)
        return rounded(y + _along_channels(b[0], given) if b else y, given), x

    def vjp(self, params: Params, cache: tuple[Tensor, ...], gy: Tensor) -> tuple[Grads, tuple[Tensor, ...]]:
        x, w, *b = cache
        g = in_single(check_gy(self, gy, x.shape, x))
        found = [g * _along_channels(w, x), _sum(g * in_single(x)), *[_sum(g)] * len(b)]
        return params, tuple([rounded(one, x) for one in found])


@frozen
class FunctionalBatchNorm(_OfChannels):
    """Batch normalization with running statistics; weights and statistics are part of the input.

        y   = γ (x - μ) r + β       r = 1 / √(σ² + ε)
        gx  = γ r gy                gγ  = Σ gy (x - μ) r            gβ = Σ gy
        gμ  = -Σ gx                 gσ² = -Σ gx (x - μ) r² / 2

    It computes ``torch.nn.functional.batch_norm`` in evaluation mode. Without a weight γ is 1, without a bias β is 0.

    Args:
        eps: Added to the variance before the square root, to avoid division by 0.

    Shape:
        (x, mean, variance), (x, mean, variance, weight) or (x, mean, variance, weight, bias), with x (N, channels, ...) and all
        others (channels,) → y (N, channels, ...)

    Cache:
        The tensors of x, not copied.

    Raises:
        ValueError: If the tensors do not fit together.

    References:
        Ioffe & Szegedy 2015, algorithm 2; ``torch.nn.functional.batch_norm``.

    >>> FunctionalBatchNorm()({}, (torch.ones(1, 2), torch.ones(2), torch.ones(2)))
    tensor([[0., 0.]])
    """

    eps: float = field(default=1e-5, validator=number(above=0.0))

    def apply(self, params: Params, x: tuple[Tensor, ...], rng: Rng = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        given, *rest = self.checked(params, x, (3, 4, 5))
        y = self._standardize(given, rest)
        y = y * _along_channels(rest[2], given) if len(rest) > 2 else y
        return rounded(y + _along_channels(rest[3], given) if len(rest) > 3 else y, given), x

    def _standardize(self, x: Tensor, rest: list[Tensor]) -> Tensor:
        return (in_single(x) - _along_channels(rest[0], x)) * self._inverse_std(x, rest)

    def _inverse_std(self, x: Tensor, rest: list[Tensor]) -> Tensor:
        return torch.rsqrt(_along_channels(rest[1], x) + self.eps)

    def vjp(self, params: Params, cache: tuple[Tensor, ...], gy: Tensor) -> tuple[Grads, tuple[Tensor, ...]]:
        x, *rest = cache
        g = in_single(check_gy(self, gy, x.shape, x))
        r, y = self._inverse_std(x, rest), self._standardize(x, rest)
        gx = (g * _along_channels(rest[2], x) if len(rest) > 2 else g) * r
        gvariance = _sum(gx * y) * (r * -0.5).reshape(-1)
        found = [gx, -_sum(gx), gvariance, *[_sum(g * y), _sum(g)][: len(rest) - 2]]
        return params, tuple([rounded(one, x) for one in found])


@frozen
class GroupStandardize(Layer):
    """Shift and scale each group of channels of each row to mean 0 and variance 1, without weights.

        y  = (x - μ) r       r = 1 / √(σ² + ε)       μ and σ² over the n elements of a group
        gx = r (gy - Σ gy / n - y Σ gy y / n)

    It is ``GroupNorm`` without the affine map, for any number of channels.

    Args:
        num_groups: Number of groups of channels; ``None`` for one group per channel, as in instance normalization.
        eps: Added to the variance before the square root, to avoid division by 0.

    Shape:
        x (N, channels, ...) → y (N, channels, ...)

    Cache:
        ``y``, and r of each group of each row.

    Raises:
        ValueError: If ``num_groups`` does not divide the channels.

    References:
        Wu & He 2018; ``torch.nn.functional.group_norm``.

    >>> GroupStandardize(1)({}, torch.tensor([[1.0, -1.0]]))
    tensor([[ 1.0000, -1.0000]])
    """

    num_groups: int | None = field(default=None, validator=size_or_none)
    eps: float = field(default=1e-5, validator=number(above=0.0))

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[Tensor, Tensor, Shape]]:
        if require_dense_floating(self, params, x).dim() < 2:
            raise Misfit
        groups = x.shape[1] if self.num_groups is None else self.num_groups
        if x.shape[1] % groups:
            raise Misfit
        if not x.numel():
            return x, (x, x.new_ones(x.shape[0], groups, 1), (x.shape[0], groups, 0))
        rows = in_single(x).reshape(x.shape[0], groups, -1)
        variance, mean = torch.var_mean(rows, -1, correction=0, keepdim=True)
        r = torch.rsqrt(variance + self.eps)
        y = rounded(((rows - mean) * r).reshape(x.shape), x)
        return y, (y, r, tuple(rows.shape))

    def vjp(self, params: Params, cache: tuple[Tensor, Tensor, Shape], gy: Tensor) -> tuple[Grads, Tensor]:
        y, r, shape = cache
        if not y.numel():
            return params, check_gy(self, gy, y.shape, y)
        g = in_single(check_gy(self, gy, y.shape, y)).reshape(shape)
        rows = in_single(y).reshape(shape)
        gx = r * (g - g.mean(-1, keepdim=True) - rows * (g * rows).mean(-1, keepdim=True))
        return params, rounded(gx.reshape(y.shape), y)

    def complaint(self, x: Tensor) -> str | None:
        return (
            floating_complaint(x)
            or f"x must have the axes (N, channels, ...), with channels divisible by num_groups={self.num_groups}"
        )
