"""Layers whose weight is made from others."""

import torch

import funcnet as fn
from cases.making import case, normal

CASES = {
    "weight_norm": case(fn.weight_norm(fn.Linear(3, 4)), normal(5, 3)),
    "weight_norm of all, of an embedding": case(fn.weight_norm(fn.Embedding(5, 3), dim=None), torch.tensor([4, 0, 4])),
    "weight_norm of dim 1, twice": case(
        fn.weight_norm(fn.weight_norm(fn.Conv1d(2, 3, 2), dim=1), "bias"), normal(2, 2, 4)
    ),
    "weight_norm of a stochastic layer": case(fn.weight_norm(fn.DropConnect(3, 4, 0.3)), normal(5, 3)),
    "spectral_norm": case(fn.spectral_norm(fn.Linear(3, 4), n_power_iterations=2), normal(5, 3)),
    "spectral_norm of a transposed convolution": case(fn.spectral_norm(fn.ConvTranspose1d(2, 3, 2)), normal(2, 2, 4)),
    "orthogonal": case(fn.orthogonal(fn.Linear(3, 3)), normal(5, 3)),
    "orthogonal, wide, by cayley, without base": case(
        fn.orthogonal(fn.Linear(4, 2), orthogonal_map="cayley", use_trivialization=False), normal(5, 4)
    ),
    "orthogonal, tall, by matrix_exp": case(fn.orthogonal(fn.Linear(1, 3), "weight", "matrix_exp"), normal(2, 1)),
    "orthogonal, of a convolution, by householder": case(fn.orthogonal(fn.Conv2d(1, 2, (3, 2))), normal(2, 1, 4, 3)),
    "orthogonal, square, by householder": case(
        fn.orthogonal(fn.Linear(3, 3), orthogonal_map="householder", use_trivialization=False), normal(2, 3)
    ),
    "parametrize": case(fn.parametrize(fn.Linear(3, 4), fn.Exp()), normal(5, 3)),
    "parametrize by a net": case(
        fn.serial(fn.Linear(3, 3), fn.parametrize(fn.BatchNorm1d(3), fn.serial(fn.Scale(3), fn.Softplus()))), normal(5, 3)
    ),
}  # fmt: skip
