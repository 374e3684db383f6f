"""Losses that each break one thing, and the law or rule that must report it."""

from typing import Any

import attrs
import torch
from torch import Tensor

import funcnet as fn
from funcnet.losses.loss import reduction_scale, reductions


@fn.frozen
class Squares(fn.Loss):
    """The squared error as a formula, on which the broken losses are built; it is correct."""

    reduction: str = attrs.field(default="mean", validator=reductions)

    def forward(self, y: Tensor, target: Tensor) -> Any:
        d = y - target
        c = reduction_scale(self.reduction, y)
        terms = self.terms(d)
        return (
            terms if self.reduction == "none" else (terms.float().sum() * c).to(y) if y.element_size() < 4 else terms.sum() * c
        ), (d, c)

    def terms(self, d: Tensor) -> Tensor:
        return d * d

    def backward(self, cache: Any, g: Any = None) -> Tensor:
        d, c = cache
        return self.slope(d, c if g is None else g * c)

    def slope(self, d: Tensor, c: Any) -> Tensor:
        return 2 * d * c

    def target_grad(self, cache: Any, g: Any) -> Any:
        d, c = cache
        return -2 * d * (g * c)

    def weight_of(self, target: Tensor) -> float | Tensor:
        return target.numel() if self.reduction == "mean" else len(target)


@fn.frozen
class HalfSlope(Squares):
    """Returns the gradient of half the value."""

    def slope(self, d, c):
        return d * c


@fn.frozen
class WrongTargetSign(Squares):
    """Gives the target's gradient the sign of y's."""

    def target_grad(self, cache, g):
        return -super().target_grad(cache, g)


@fn.frozen
class NoTargetGradient(Squares):
    """Returns no gradient for a target on which the value depends."""

    def target_grad(self, cache, g):
        return None


@fn.frozen
class Offset(Squares):
    """Returns a gradient that is not 0 for g = 0."""

    def slope(self, d, c):
        return 2 * d * c + 1e-3


@fn.frozen
class Writing(Squares):
    """Subtracts in place."""

    def forward(self, y, target):
        value, cache = super().forward(y, target)
        y.sub_(target).add_(target)
        return value, cache


CALLS = [0]


@fn.frozen
class Counting(Squares):
    """Depends on how often it was called."""

    def terms(self, d):
        CALLS[0] += 1
        return d * d * (1 + 1e-6 * CALLS[0])


@fn.frozen
class Noisy(Squares):
    """Draws from the global generator."""

    def terms(self, d):
        return d * d + 0 * torch.rand(())


@fn.frozen
class Single(Squares):
    """Returns a gradient in float32, whatever y is."""

    def slope(self, d, c):
        return (2 * d * c).float()


@fn.frozen
class Short(Squares):
    """Returns a gradient with one axis less."""

    def slope(self, d, c):
        return (2 * d * c).sum(-1)


@fn.frozen
class HalfSums(Squares):
    """Sums half precision without a wider accumulator."""

    def forward(self, y, target):
        value, cache = super().forward(y, target)
        if self.reduction == "none" or y.element_size() > 2:
            return value, cache
        total = torch.zeros((), dtype=y.dtype)
        for term in self.terms(cache[0]).reshape(-1):
            total = total + term
        return total * total.new_full((), cache[1]), cache


@fn.frozen
class Branching(Squares):
    """Reads a number, which vmap cannot."""

    def terms(self, d):
        return d * d if float(d.detach().sum()) > -1e9 else d


@fn.frozen
class Memory(Squares):
    """Reads memory as if it were contiguous."""

    def terms(self, d):
        return d * d

    def slope(self, d, c):
        return 2 * torch.as_strided(d, d.shape, torch.empty(d.shape).stride()) * c


@fn.frozen(eq=False)
class Unequal(Squares):
    """Equals only itself."""

    __hash__ = object.__hash__

    def __eq__(self, other):
        return self is other


@fn.frozen
class Scaled(Squares):
    """Returns another gradient beside the value than the layer does."""

    def value_and_grad(self, y, target):
        value, gy = super().value_and_grad(y, target)
        return value, 0.5 * gy


@fn.frozen
class Called(Squares):
    """Returns another value when it is called."""

    def __call__(self, y, target):
        return 2 * super().__call__(y, target)


@fn.frozen
class NoneIsHalf(Squares):
    """Takes one half if no gradient of the value is given."""

    def backward(self, cache, g=None):
        return super().backward(cache, 0.5 if g is None else g)


@fn.frozen
class MeanOverRows(Squares):
    """Its mean divides by the number of rows."""

    def forward(self, y, target):
        if self.reduction == "mean":
            return self.with_reduction("batch").forward(y, target)
        return super().forward(y, target)

    def weight_of(self, target):
        return len(target)


@fn.frozen
class BatchIsMean(Squares):
    """Its "batch" is the mean over elements."""

    def forward(self, y, target):
        return self.with_reduction("mean").forward(y, target) if self.reduction == "batch" else super().forward(y, target)


@fn.frozen
class TermsByRow(Squares):
    """Its terms are sums of rows, but its mean is over elements."""

    def forward(self, y, target):
        value, (d, c) = super().forward(y, target)
        return (value.sum(-1) if self.reduction == "none" else value), (d, c)

    def backward(self, cache, g=None):
        g = g.unsqueeze(-1) if self.reduction == "none" and isinstance(g, Tensor) else g
        return super().backward(cache, g)

    def target_grad(self, cache, g):
        return super().target_grad(cache, g.unsqueeze(-1) if self.reduction == "none" else g)


@fn.frozen
class Masked(Squares):
    """Leaves targets of 0 out of the mean, but counts them in the weight of a batch."""

    def forward(self, y, target):
        d = torch.where(target == 0, 0.0, y - target)
        c = 1 / (target != 0).sum().clamp_min(1) if self.reduction == "mean" else reduction_scale(self.reduction, y)
        return (d * d if self.reduction == "none" else (d * d).sum() * c).to(y), (d, c)

    def term_weights(self, target):
        return (target != 0).double()


@fn.frozen
class WeighsNothing(Squares):
    """Has a weight for a batch without rows."""

    def weight_of(self, target):
        return max(1, target.numel())


@fn.frozen
class NegativeWeight(Squares):
    """Has negative weights, which cancel in a ratio of sums."""

    def weight_of(self, target):
        return -target.numel()


@fn.frozen
class Centered(Squares):
    """Compares with the mean target of the batch."""

    def forward(self, y, target):
        return super().forward(y, target - target.mean(0, keepdim=True))

    def target_grad(self, cache, g):
        gt = super().target_grad(cache, g)
        return gt - gt.mean(0, keepdim=True)


@fn.frozen
class Unpickled(Squares):
    """Its pickle has another reduction."""

    def __reduce__(self):
        return Unpickled, ("sum" if self.reduction == "mean" else "mean",)


@fn.frozen
class Mute(Squares):
    """Its repr is not a call."""

    def __repr__(self):
        return "a loss"


BROKEN = {
    HalfSlope: "law 1, transpose",
    WrongTargetSign: "law 1, transpose",
    NoTargetGradient: "law 1, transpose",
    Offset: "law 1, transpose",
    Writing: "law 3, pure",
    Counting: "law 3, pure",
    Noisy: "law 3, pure",
    Single: "law 4, structure",
    Short: "law 4, structure",
    HalfSums: "law 1, transpose in float16",
    Branching: "law 8, transforms",
    Memory: "law 6, strides",
    Unequal: "law 9, value",
    Unpickled: "law 9, value",
    Mute: "law 9, value",
    Scaled: "rule of losses, agreement",
    Called: "rule of losses, agreement",
    NoneIsHalf: "rule of losses, agreement",
    MeanOverRows: "rule of losses, reductions",
    BatchIsMean: "rule of losses, reductions",
    TermsByRow: "rule of losses, reductions",
    Masked: "rule of losses, weights",
    WeighsNothing: "rule of losses, weights",
    NegativeWeight: "rule of losses, weights",
    Centered: "rule of losses, weights",
}
