"""Print digests of training steps, with the default choices between kernels: ``python digests.py eager`` or ``compiled``.

Sizes are large enough for the kernels of large inputs: oneDNN's products and tanh, pooling by slices, channels_last.
"""

import hashlib
import sys
from typing import Any

import torch

import funcnet as fn
from funcnet import random, tree


def images() -> tuple[fn.Layer, Any]:
    """Return a net with convolutions, and an input."""
    layers = [fn.Conv2d(3, 16, 3, padding=1), fn.BatchNorm2d(16), fn.ReLU(), fn.MaxPool2d(2), fn.Conv2d(16, 16, 3, padding=1)]
    return fn.serial(*layers, fn.Tanh(), fn.AvgPool2d(2), fn.Flatten(), fn.Linear(1024, 10)), random.normal(1, (32, 3, 32, 32))


def rows() -> tuple[fn.Layer, Any]:
    """Return a net with matrix products, and an input."""
    layers = [fn.Linear(128, 256), fn.Tanh(), fn.LayerNorm(256), fn.Linear(256, 256), fn.GELU(), fn.Linear(256, 10)]
    return fn.serial(*layers), random.normal(1, (128, 128))


def two_layers() -> tuple[fn.Layer, Any]:
    """Return a net with two matrix products, and an input."""
    return fn.serial(fn.Linear(128, 256), fn.Tanh(), fn.Linear(256, 10)), random.normal(1, (128, 128))


def sequences() -> tuple[fn.Layer, Any]:
    """Return a net with attention and an LSTM, and an input."""
    last = fn.serial(fn.LSTM(64, 64), fn.Select(0), fn.Flatten(), fn.Linear(1024, 10))
    return fn.serial(fn.transformer_encoder_block(64, 4, dropout=0.0), last), random.normal(1, (16, 16, 64))


def digest(net: fn.Layer, x: Any, compiled: bool) -> str:
    """Return the digest of params and state after two steps."""
    labels = torch.arange(len(x)) % 10
    step = fn.train_step(net, fn.CrossEntropy(), opt := fn.AdamW(lr=0.01))
    params = net.init(0)
    now = params, opt.init(params)
    step = fn.compile(step) if compiled else step
    for _ in range(2):
        now = step(*now, x, labels)[:2]
    found = hashlib.sha256()
    for leaf in tree.leaves(now):
        found.update(leaf.detach().contiguous().numpy().tobytes())
    return found.hexdigest()


def main() -> None:
    """Print a line for each net; if compiled, only for the smallest, since compiling is slow."""
    torch.set_num_threads(1)
    compiled = sys.argv[1] == "compiled"
    for make in (two_layers,) if compiled else (rows, images, sequences):
        print(make.__name__, digest(*make(), compiled))


if __name__ == "__main__":
    main()
