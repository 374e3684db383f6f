"""Recurrent layers as formulas, for transforms of ``torch.func``, which do not support torch's kernels, and for keyed dropout.

a = w_ih x_t + b_ih      b = w_hh h + b_hh
RNN    h′ = tanh(a + b), or relu
LSTM   i, f, g, o = a + b      c′ = σ(f) c + σ(i) tanh(g)      h′ = σ(o) tanh(c′)      projected by w_hr if there is one
GRU    r = σ(a_r + b_r)   z = σ(a_z + b_z)   n = tanh(a_n + r b_n)      h′ = (1 - z) n + z h
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (its usual name)

States = tuple[Tensor, ...]
Step = Callable[[Tensor, States, Sequence[Tensor]], States]
"""A function from w_ih x + b_ih, the states and the weights (w_hh and b_hh, or only w_hh) to the next states."""


def _hidden(h: Tensor, weights: Sequence[Tensor]) -> Tensor:
    return F.linear(h, weights[0], *weights[1:2])


def _simple(activation: Callable[[Tensor], Tensor]) -> Step:
    return lambda a, states, weights: (activation(a + _hidden(states[0], weights)),)


def _lstm(a: Tensor, states: States, weights: Sequence[Tensor]) -> States:
    i, f, g, o = (a + _hidden(states[0], weights)).chunk(4, -1)
    c = torch.sigmoid(f) * states[1] + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def _gru(a: Tensor, states: States, weights: Sequence[Tensor]) -> States:
    (a_r, a_z, a_n), (b_r, b_z, b_n) = a.chunk(3, -1), _hidden(states[0], weights).chunk(3, -1)
    z = torch.sigmoid(a_z + b_z)
    return ((1 - z) * torch.tanh(a_n + torch.sigmoid(a_r + b_r) * b_n) + z * states[0],)


STEPS: dict[Any, Step] = {
    torch.rnn_tanh: _simple(torch.tanh),
    torch.rnn_relu: _simple(torch.relu),
    torch.lstm: _lstm,
    torch.gru: _gru,
}


def _sequence(step: Step, x: Tensor, states: States, weights: Sequence[Tensor], has_bias: bool, reverse: bool) -> Any:
    """Run one direction of one layer over x (T, ...); return the outputs and the last states."""
    w_ih, w_hh, *rest = weights
    biases, projection = (rest[:2], rest[2:]) if has_bias else ([], rest)
    inputs, outputs = F.linear(x, w_ih, *biases[:1]), []
    for t in reversed(range(len(x))) if reverse else range(len(x)):
        states = step(inputs[t], states, [w_hh, *biases[1:]])
        states = (F.linear(states[0], projection[0]), *states[1:]) if projection else states
        outputs.append(states[0])
    return torch.stack(outputs[::-1] if reverse else outputs), states


def recurrent(
    f: Any,
    dropout: Callable[[Tensor, float], Tensor],
    writes_out: bool,
    x: Tensor,
    hx: Any,
    weights: Sequence[Tensor],
    has_bias: bool,
    num_layers: int,
    dropout_p: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, ...]:
    """Compute ``torch.lstm`` or a similar function layer by layer, with keyed dropout between the layers.

    Each layer is one call of the kernel ``f`` or, with ``writes_out``, the formula of its steps.
    """
    states: States = (hx,) if isinstance(hx, Tensor) else tuple(hx)
    directions, last = 1 + bidirectional, []
    per_layer, x = len(weights) // num_layers, x.transpose(0, 1) if batch_first else x
    for n in range(num_layers):
        x = dropout(x, dropout_p) if n and train else x
        mine = weights[n * per_layer : (n + 1) * per_layer]
        here = tuple([one[n * directions : (n + 1) * directions] for one in states])
        if writes_out:
            x, moved = _both_ways(STEPS[f], x, here, mine, has_bias, directions)
        else:
            given = here if len(here) > 1 else here[0]
            x, *moved = f(x, given, mine, has_bias, 1, 0.0, train, bidirectional, False)
        last.append(moved)
    y = x.transpose(0, 1) if batch_first else x
    return (y, *[torch.cat(rows) for rows in zip(*last, strict=True)])


def _both_ways(step: Step, x: Tensor, states: States, weights: Sequence[Tensor], has_bias: bool, directions: int) -> Any:
    """Run all directions of one layer; return the concatenated outputs and the last states."""
    half = len(weights) // directions
    ways = [
        _sequence(step, x, tuple([one[d] for one in states]), weights[d * half : (d + 1) * half], has_bias, reverse=d > 0)
        for d in range(directions)
    ]
    return torch.cat([y for y, _ in ways], -1), [torch.stack(rows) for rows in zip(*[last for _, last in ways], strict=True)]
