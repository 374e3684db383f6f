"""Nets of every family of layers, and batches for the tests of training on several workers."""

from typing import Any

import torch

import funcnet as fn
from funcnet import random, tree

ROWS = 7
"""The shards have 3 and 4 rows on two workers, and 1, 2, 2 and 2 on four."""


def normal(seed: int, *shape: int) -> torch.Tensor:
    """Sample normal numbers in float64."""
    return random.normal(random.key(seed), shape, dtype=torch.float64)


def whole(seed: int, n: int, *shape: int) -> torch.Tensor:
    """Sample whole numbers below n."""
    return (random.uniform(random.key(seed), shape) * n).long()


IMAGES = normal(1, ROWS, 2, 6, 6)
SEQUENCES = normal(2, ROWS, 5, 4)
VECTORS = normal(3, ROWS, 4)

CONV = fn.serial(
    fn.Conv2d(2, 4, 3, padding=1),
    fn.BatchNorm2d(4),
    fn.SiLU(),
    fn.MaxPool2d(2),
    fn.residual(fn.serial(fn.Conv2d(4, 4, 3, padding=1, bias=False), fn.BatchNorm2d(4))),
    fn.ConvTranspose2d(4, 2, 2),
    fn.InstanceNorm2d(2, affine=True, track_running_stats=True),
    fn.AvgPool2d(2),
    fn.Flatten(),
    fn.Linear(8, 3),
)

NETS = {
    "linear": (fn.mlp([4, 8, 8, 3], fn.GELU()), VECTORS),
    "bilinear": (fn.serial(fn.branch(fn.Linear(4, 3), fn.Tanh()), fn.Bilinear(3, 4, 3)), VECTORS),
    "conv, pooling, norms": (CONV, IMAGES),
    "norms of rows": (
        fn.serial(fn.Linear(4, 6), fn.LayerNorm(6), fn.Linear(6, 6), fn.RMSNorm(6), fn.GroupNorm(2, 6), fn.Linear(6, 3)),
        VECTORS,
    ),
    "attention": (
        fn.serial(fn.transformer_encoder_block(4, 2), fn.Linear(4, 4), fn.MultiHeadAttention(4, 2), fn.Mean(1), fn.Linear(4, 3)),
        SEQUENCES,
    ),
    "recurrent": (
        fn.serial(
            fn.LSTM(4, 3, batch_first=True, bidirectional=True),
            fn.Pick(0),
            fn.GRU(6, 4, batch_first=True),
            fn.Pick(0),
            fn.RNN(4, 3, batch_first=True),
            fn.Pick(0),
            fn.Index((slice(None), -1)),
        ),
        SEQUENCES,
    ),
    "embedding": (
        fn.serial(fn.Embedding(6, 4), fn.LearnedPositions(5, 4), fn.Flatten(), fn.Linear(20, 3)),
        whole(4, 6, ROWS, 5),
    ),
    "embedding bag": (fn.serial(fn.EmbeddingBag(6, 4), fn.Linear(4, 3)), whole(5, 6, ROWS, 5)),
    "shape": (
        fn.serial(
            fn.Permute((0, 2, 1)), fn.ConstantPad1d(1, 0.5), fn.Flatten(), fn.Unflatten(1, (4, 7)), fn.Mean(2), fn.Linear(4, 3)
        ),
        SEQUENCES,
    ),
    "noise of nothing": (
        fn.serial(fn.Linear(4, 6), fn.Dropout(0.0), fn.DropConnect(6, 6, 0.0), fn.AlphaDropout(0.0), fn.Linear(6, 3)),
        VECTORS,
    ),
    "parallel, shared": (
        fn.serial(
            fn.branch(fn.Linear(4, 4), fn.Tanh()),
            fn.shared(fn.Linear(4, 5)),
            fn.parallel(fn.Tanh(), fn.Linear(5, 5)),
            fn.Add(),
            fn.Linear(5, 3),
        ),
        VECTORS,
    ),
    "tied": (
        fn.tied(fn.serial(fn.Linear(4, 4), fn.Tanh(), fn.Linear(4, 4), fn.Sin(), fn.Linear(4, 3)), ("0.weight", "2.weight")),
        VECTORS,
    ),
    "repeat, remat": (
        fn.serial(
            fn.repeat(fn.residual(fn.serial(fn.Linear(4, 4), fn.BatchNorm1d(4), fn.Tanh())), 3),
            fn.remat(fn.serial(fn.Linear(4, 4), fn.BatchNorm1d(4), fn.Tanh(), fn.Linear(4, 4)), segments=2),
            fn.Linear(4, 3),
        ),
        VECTORS,
    ),
    "reversible": (
        fn.serial(
            fn.Chunk(2, 1),
            *[fn.reversible(fn.serial(fn.Linear(2, 2), fn.BatchNorm1d(2), fn.Tanh()), fn.serial(fn.Linear(2, 2), fn.Sin()))] * 2,
            fn.Concat(1),
            fn.Linear(4, 3),
        ),
        VECTORS,
    ),
    "freeze": (
        fn.serial(
            fn.freeze(fn.serial(fn.Linear(4, 4), fn.BatchNorm1d(4))), fn.Linear(4, 4), fn.freeze(fn.Linear(4, 4)), fn.Linear(4, 3)
        ),
        VECTORS,
    ),
    "scan": (
        fn.serial(
            fn.branch(fn.Transpose(0, 1), fn.serial(fn.Index((slice(None), 0)), fn.Linear(4, 3))),
            fn.scan(fn.GRUCell(4, 3), output_is_carry=True),
            fn.Pick(1),
            fn.Linear(3, 3),
        ),
        SEQUENCES,
    ),
    "graph": (
        fn.graph("x", h=(fn.Linear(4, 4), "x"), n=(fn.BatchNorm1d(4), "h"), s=(fn.Mul(), "n", "x"), y=(fn.Linear(4, 3), "s")),
        VECTORS,
    ),
    "ensemble": (fn.serial(fn.ensemble(fn.serial(fn.Linear(4, 4), fn.BatchNorm1d(4), fn.Linear(4, 3)), 3), fn.Mean(0)), VECTORS),
    "cast": (fn.serial(fn.Linear(4, 4), fn.cast(fn.serial(fn.LayerNorm(4), fn.Linear(4, 3)), torch.float64)), VECTORS),
    "lora, weights made of others": (
        fn.serial(
            fn.lora(fn.Linear(4, 4), 2),
            fn.weight_norm(fn.Linear(4, 4)),
            fn.spectral_norm(fn.Linear(4, 4)),
            fn.orthogonal(fn.Linear(4, 4)),
            fn.Linear(4, 3),
        ),
        VECTORS,
    ),
    "gradient rules": (
        fn.serial(
            fn.Linear(4, 4),
            fn.scale_gradient(0.5),
            fn.checked(fn.straight_through(fn.Sign())),
            fn.clip_gradient(0.01),
            fn.Linear(4, 3),
        ),
        VECTORS,
    ),
}


def double(net: fn.Layer) -> Any:
    """Return initial params in float64."""
    return tree.map(lambda leaf: leaf.double() if leaf.is_floating_point() else leaf, net.init(0))
