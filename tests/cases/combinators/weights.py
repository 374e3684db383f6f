"""Layers whose weights are changed, computed from others, or shared."""

import torch

import funcnet as fn
from cases.making import case, normal

LOW_RANK = {
    "lora": case(fn.lora(fn.Linear(3, 4), 2), normal(5, 3)),
    "lora of a convolution": case(fn.lora(fn.Conv1d(2, 3, 2, bias=False), 1, alpha=0.5), normal(2, 2, 4)),
    "lora of an embedding": case(fn.lora(fn.Embedding(5, 3), 1, alpha=2.0), torch.tensor([4, 0, 4])),
    "lora with dropped weights": case(fn.lora(fn.DropConnect(3, 4, 0.3), 1), normal(5, 3)),
    "lora in a serial": case(fn.serial(fn.Linear(3, 3), fn.Tanh(), fn.lora(fn.Linear(3, 2), 1)), normal(5, 3)),
}

PARAMETRIZED = {
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

PAIR = normal(4, 3), normal(4, 3)
LANGUAGE = fn.serial(fn.Embedding(5, 3), fn.Tanh(), fn.Linear(3, 5, bias=False))

SHARED = {
    "shared": case(fn.shared(fn.Linear(3, 2)), PAIR),
    "shared by one": case(fn.shared(fn.Linear(3, 2)), PAIR[:1]),
    "shared with dropout and norm": case(fn.shared(fn.serial(fn.BatchNorm1d(3), fn.Dropout(0.3), fn.Linear(3, 2))), PAIR),
    "shared, siamese": case(fn.serial(fn.shared(fn.Linear(3, 2)), fn.Sub()), PAIR),
    "tied": case(fn.tied(LANGUAGE, ("0.weight", "2.weight")), torch.tensor([4, 0, 4, 1])),
    "tied layers": case(fn.tied(fn.serial(*[fn.Linear(3, 3), fn.Tanh()] * 3), ("0", "2", "4")), PAIR[0]),
    "tied by name, stochastic": case(
        fn.tied(fn.serial(a=fn.BatchNorm1d(3), d=fn.Dropout(0.3), b=fn.BatchNorm1d(3)), ("b", "a")), PAIR[0]
    ),
    "tied twice": case(
        fn.tied(fn.serial(*[fn.Linear(3, 3)] * 3), ("0.weight", "1.weight", "2.weight"), ("1.bias", "2.bias")), PAIR[0]
    ),
}

CASES = {**LOW_RANK, **PARAMETRIZED, **SHARED}
