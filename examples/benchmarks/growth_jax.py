"""The trainings of ``growth_nets`` in JAX: plain functions of arrays, the whole step under ``jax.jit``.

The layers of a deep net and the steps of a sequence are a ``lax.scan``, as JAX recommends.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from examples.benchmarks.growth_nets import HEADS, INPUTS, RATE, ROWS, WIDTH, Step, batch

Net = tuple[Any, Callable[[Any, Any], Any]]
"""The initial params, and the function of params and x."""


def _linear(key: Any, inputs: int, outputs: int) -> tuple[Any, Any]:
    return jax.random.normal(key, (inputs, outputs)) / inputs**0.5, jnp.zeros(outputs)


def _affine(p: Any, x: Any) -> Any:
    return x @ p[0] + p[1]


def _perceptron(key: Any, *sizes: int) -> Net:
    """Return two linear maps with a ReLU between them."""
    one, other = jax.random.split(key)
    params = _linear(one, sizes[0], sizes[1]), _linear(other, sizes[1], sizes[2])
    return params, lambda p, x: _affine(p[1], jax.nn.relu(_affine(p[0], x)))


def _deep(key: Any, n: int) -> Net:
    params = jax.vmap(lambda one: _linear(one, WIDTH, WIDTH))(jax.random.split(key, n))
    return params, lambda params, x: jax.lax.scan(lambda x, p: (jax.nn.relu(_affine(p, x)), None), x, params)[0]


def _attention(key: Any) -> Net:
    one, other = jax.random.split(key)

    def apply(p: Any, x: Any) -> Any:
        q, k, v = jnp.moveaxis(_affine(p[0], x).reshape(*x.shape[:2], 3, HEADS, -1), 2, 0)
        return _affine(p[1], jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(x.shape))

    return (_linear(one, WIDTH, 3 * WIDTH), _linear(other, WIDTH, WIDTH)), apply


def _lstm(key: Any, *, batch_first: bool) -> Net:
    one, other = jax.random.split(key)
    params = _linear(one, INPUTS, 4 * WIDTH), _linear(other, WIDTH, 4 * WIDTH)

    def apply(p: Any, x: Any) -> Any:
        def cell(carry: Any, gates: Any) -> Any:
            i, f, g, o = jnp.split(gates + _affine(p[1], carry[0]), 4, axis=-1)
            c = jax.nn.sigmoid(f) * carry[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        x = jnp.moveaxis(x, 1, 0) if batch_first else x
        outputs = jax.lax.scan(cell, (jnp.zeros((ROWS, WIDTH)),) * 2, _affine(p[0], x))[1]
        return jnp.moveaxis(outputs, 0, 1) if batch_first else outputs

    return params, apply


def _net(axis: str, n: int) -> Net:
    key = jax.random.key(0)
    nets: dict[str, Callable[[], Net]] = {
        "width": lambda: _perceptron(key, n, n, n),
        "depth": lambda: _deep(key, n),
        "batch": lambda: _perceptron(key, WIDTH, 2 * WIDTH, WIDTH),
        "attention": lambda: _attention(key),
        "lstm": lambda: _lstm(key, batch_first=True),
        "cells": lambda: _lstm(key, batch_first=False),
    }
    return nets[axis]()


def jax_jit(axis: str, n: int, *, donated: bool = False) -> Step:
    """Return JAX's step, which waits for its result; a donated one may overwrite its params."""
    params, apply = _net(axis, n)
    x, target = (jnp.asarray(one.numpy()) for one in batch(axis, n))
    held = [params]
    del params

    @partial(jax.jit, donate_argnums=(0,) if donated else ())
    def step(params: Any, x: Any, target: Any) -> Any:
        value, grads = jax.value_and_grad(lambda p: jnp.mean((apply(p, x) - target) ** 2))(params)
        return jax.tree.map(lambda p, g: p - RATE * g, params, grads), value

    def take() -> None:
        held.append(jax.block_until_ready(step(held.pop(), x, target)[0]))

    return take
