"""Keyed draws: while a module runs, torch's random functions sample with a key.

Each call uses the next key, ``fold_in(key, n)``, so the samples are the same in eager code, in compiled code and within ``vmap``.
Random numbers inside a torch kernel, such as the noise of ``RReLU``, come from torch's generator instead.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (its usual name)
from torch.overrides import TorchFunctionMode

from funcnet import random
from funcnet.interop.torch_nn.lifting.attention_formulas import attention, multi_head_attention
from funcnet.interop.torch_nn.lifting.recurrent_formulas import STEPS, recurrent
from funcnet.random.keys import Key

_ALPHA = -1.7580993408473766
"""The value of SELU at minus infinity, which replaces dropped elements in alpha dropout."""


class KeyedDraws(TorchFunctionMode):
    """A mode in which torch's random functions sample with a key.

    Args:
        key: The key; ``None`` for a module that uses no random numbers.
        writes_out: Whether to replace fused kernels with formulas, which every transform supports.

    Attributes:
        drawn: Number of draws so far.
        hidden: Whether there was a draw that a tracer does not report to modes, such as ``randn_like``.
        fused: Whether an attention or recurrence kernel was called that some transforms do not support.
    """

    def __init__(self, key: Key | None, *, writes_out: bool = False) -> None:
        super().__init__()
        self.key, self.writes_out, self.drawn, self.hidden, self.fused = key, writes_out, 0, False, False

    def __torch_function__(self, f: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a torch function, or its counterpart that samples with the key."""
        draw, options = DRAWS.get(f), kwargs or {}
        if draw is None:
            return f(*args, **options)
        return draw(self, *args, **{name: value for name, value in options.items() if name != "generator"})  # the key replaces it

    def next(self) -> Key:
        """Return a key for one draw."""
        self.drawn += 1
        return random.fold_in(0 if self.key is None else self.key, self.drawn - 1)

    def dropout(self, x: Tensor, p: float) -> Tensor:
        """Drop elements with probability p."""
        y: Tensor = _dropout(self, x, p)
        return y

    def bernoulli(self, shape: tuple[int, ...], p: float, like: Tensor) -> Tensor:
        """Sample ones with probability p, and zeros."""
        return random.bernoulli(self.next(), shape, float(p)).to(like.dtype)

    def uniform(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Sample numbers between 0 and 1."""
        return random.uniform(self.next(), shape, dtype=_floating(like.dtype)).to(like)

    def normal(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Sample from the standard normal distribution."""
        return random.normal(self.next(), shape, dtype=_floating(like.dtype)).to(like)


DRAWS: dict[Any, Callable[..., Any]] = {}
"""For each torch function, the counterpart that samples with the key; its arguments are the mode and the same arguments."""


def _of(*functions: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(draw: Callable[..., Any]) -> Callable[..., Any]:
        DRAWS.update(dict.fromkeys(functions, draw))
        return draw

    return register


def _floating(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16) else torch.float32


def _shape(size: tuple[Any, ...]) -> tuple[int, ...]:
    return tuple(size[0]) if len(size) == 1 and not isinstance(size[0], int) else size


def _masked(x: Tensor, keep: Tensor, p: float, inplace: bool) -> Tensor:
    y = x * keep * (1 / (1 - p) if p < 1 else 0.0)
    return x.copy_(y) if inplace else y


def _made(f: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Wrap a function that creates a tensor to fill, since ``vmap`` cannot write samples of several keys to an unbatched one."""

    def make(draws: KeyedDraws, *args: Any, **options: Any) -> Tensor:
        made = f(*args, **options)
        return made if draws.key is None or not draws.writes_out else made + (draws.key * 0).to(made)

    return make


_MAKERS = (torch.empty, torch.zeros, torch.empty_like, torch.zeros_like, Tensor.new_empty, Tensor.new_zeros)
DRAWS.update({f: _made(f) for f in _MAKERS})


@_of(F.dropout, torch.dropout)
def _dropout(draws: KeyedDraws, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:  # noqa: A002
    return _masked(input, draws.bernoulli(tuple(input.shape), 1 - p, input), p, inplace) if training and p else input


def _channels(axes: int) -> Callable[..., Tensor]:
    """Return dropout of whole channels that are followed by some axes; the batch axis is optional."""

    def dropout(draws: KeyedDraws, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:  # noqa: A002
        lead = input.dim() - axes if axes else min(input.dim(), 2)
        shape = (*input.shape[:lead], *[1] * (input.dim() - lead))
        return _masked(input, draws.bernoulli(shape, 1 - p, input), p, inplace) if training and p else input

    return dropout


DRAWS.update(
    {F.dropout1d: _channels(1), F.dropout2d: _channels(2), F.dropout3d: _channels(3), torch.feature_dropout: _channels(0)}
)


@_of(F.alpha_dropout)
def _alpha_dropout(draws: KeyedDraws, input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:  # noqa: A002
    if not training or not p:
        return input
    return _alpha(input, draws.bernoulli(tuple(input.shape), 1 - p, input), p, inplace)


def _alpha(x: Tensor, keep: Tensor, p: float, inplace: bool) -> Tensor:
    scale = 1 / math.sqrt((1 - p) * (1 + p * _ALPHA**2)) if p < 1 else 0.0
    y = scale * (x * keep + _ALPHA * (1 - keep)) - scale * _ALPHA * p
    return x.copy_(y) if inplace else y


@_of(F.feature_alpha_dropout)
def _feature_alpha(draws: KeyedDraws, input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:  # noqa: A002
    if not training or not p:
        return input
    shape = (*input.shape[:2], *[1] * (input.dim() - 2))
    return _alpha(input, draws.bernoulli(shape, 1 - p, input), p, inplace)


@_of(F.scaled_dot_product_attention)
def _attention(draws: KeyedDraws, query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, dropout_p: float = 0.0,
               is_causal: bool = False, **options: Any) -> Tensor:  # fmt: skip
    formula = functools.partial(attention, draws.dropout) if dropout_p or draws.writes_out else F.scaled_dot_product_attention
    draws.fused = True
    return formula(query, key, value, attn_mask, dropout_p, is_causal, **options)


@_of(F.multi_head_attention_forward)
def _multi_head_attention(draws: KeyedDraws, *inputs: Any, **options: Any) -> Any:
    dropout_p = inputs[10] if options.get("training", True) else 0.0
    is_plain = not draws.writes_out and not dropout_p
    formula: Any = F.multi_head_attention_forward if is_plain else functools.partial(multi_head_attention, draws.dropout)
    draws.fused = True
    return formula(*inputs, **options)


def _recurrent(f: Any) -> Callable[..., Any]:
    """Return the counterpart of a recurrent function; packed sequences, with one argument less after x, use torch's."""

    def run(draws: KeyedDraws, x: Tensor, *rest: Any) -> Any:
        draws.fused = True
        is_padded = len(rest) == 8 and isinstance(rest[-1], bool) and isinstance(rest[2], bool)
        draws_between = is_padded and rest[3] > 1 and rest[4] and rest[5]  # num_layers, dropout, train
        if not is_padded or not (draws.writes_out or draws_between):
            return f(x, *rest)
        return recurrent(f, draws.dropout, draws.writes_out, x, *rest)

    return run


DRAWS.update({f: _recurrent(f) for f in STEPS})


@_of(torch.rand_like)
def _rand_like(draws: KeyedDraws, input: Tensor, **options: Any) -> Tensor:  # noqa: A002
    draws.hidden = True
    return draws.uniform(tuple(input.shape), torch.empty_like(input, **options))


@_of(torch.randn_like)
def _randn_like(draws: KeyedDraws, input: Tensor, **options: Any) -> Tensor:  # noqa: A002
    draws.hidden = True
    return draws.normal(tuple(input.shape), torch.empty_like(input, **options))


@_of(torch.rand)
def _rand(draws: KeyedDraws, *size: Any, **options: Any) -> Tensor:
    shape = _shape(size or (options.pop("size"),))
    return draws.uniform(shape, torch.empty(0, **options))


@_of(torch.randn)
def _randn(draws: KeyedDraws, *size: Any, **options: Any) -> Tensor:
    shape = _shape(size or (options.pop("size"),))
    return draws.normal(shape, torch.empty(0, **options))


@_of(torch.bernoulli)
def _bernoulli(draws: KeyedDraws, input: Tensor, p: float | None = None) -> Tensor:  # noqa: A002
    chance = input if p is None else p
    return (draws.uniform(tuple(input.shape), input) < chance).to(input.dtype)


@_of(Tensor.bernoulli_)
def _bernoulli_(draws: KeyedDraws, x: Tensor, p: Any = 0.5) -> Tensor:
    return x.copy_(draws.uniform(tuple(x.shape), x) < p)


@_of(Tensor.uniform_)
def _uniform_(draws: KeyedDraws, x: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
    return x.copy_(draws.uniform(tuple(x.shape), x) * (high - low) + low)


@_of(Tensor.normal_)
def _normal_(draws: KeyedDraws, x: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    return x.copy_(draws.normal(tuple(x.shape), x) * std + mean)


@_of(Tensor.exponential_)
def _exponential_(draws: KeyedDraws, x: Tensor, lambd: float = 1.0) -> Tensor:
    return x.copy_(random.exponential(draws.next(), tuple(x.shape), lambd, _floating(x.dtype)))
