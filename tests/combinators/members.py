"""Nets for ensembles, and single members of params and other trees."""

from typing import Any

import funcnet as fn

N = 3


def mlp(activation: fn.Layer, out: int = 2, **options: Any) -> fn.Layer:
    return fn.serial(fn.Linear(3, 5, **options), activation, fn.Linear(5, 5, **options), activation, fn.Linear(5, out, **options))


NETS: dict[str, fn.Layer] = {
    "linear": fn.Linear(3, 2),
    "linear without bias": fn.Linear(3, 2, bias=False),
    "tanh": mlp(fn.Tanh()),
    "relu": mlp(fn.ReLU()),
    "leaky relu": mlp(fn.LeakyReLU(0.1)),
    "sigmoid, no biases": mlp(fn.Sigmoid(), bias=False),
    "activation first": fn.serial(fn.Tanh(), fn.Linear(3, 2)),
    "named and nested": fn.serial(body=fn.serial(fn.Linear(3, 4), fn.Tanh()), head=fn.Linear(4, 2)),
    "softmax": fn.serial(fn.Linear(3, 4), fn.Softmax(), fn.Linear(4, 2)),
    "residual": fn.serial(fn.Linear(3, 4), fn.residual(fn.serial(fn.Linear(4, 4), fn.Tanh())), fn.Linear(4, 2)),
    "batch norm": fn.serial(fn.Linear(3, 4), fn.BatchNorm1d(4), fn.ReLU(), fn.Linear(4, 2)),
    "ensemble": fn.serial(fn.ensemble(fn.Linear(3, 2), 2), fn.Mean(0)),
    "nothing": fn.serial(),
    "no params": fn.Tanh(),
}
