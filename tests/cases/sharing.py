"""One set of params at several places."""

import torch

import funcnet as fn
from cases.making import case, normal

PAIR = normal(4, 3), normal(4, 3)
LANGUAGE = fn.serial(fn.Embedding(5, 3), fn.Tanh(), fn.Linear(3, 5, bias=False))

CASES = {
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
