"""Equal rows computed once."""

import torch

import funcnet as fn
from cases.making import case

TABLE = fn.Embedding(5, 3)
ROWS = torch.tensor([[4, 0], [1, 1], [4, 0], [0, 4], [1, 1]])

CASES = {
    "uniqued": case(fn.uniqued(fn.serial(TABLE, fn.Linear(3, 2))), torch.tensor([4, 0, 4, 4, 1])),
    "uniqued rows": case(fn.uniqued(fn.serial(TABLE, fn.Flatten(), fn.Tanh(), fn.Linear(6, 2))), ROWS),
    "uniqued, of two": case(fn.uniqued(fn.branch(TABLE, fn.serial(TABLE, fn.Sigmoid()))), ROWS),
    "uniqued with running statistics": case(
        fn.uniqued(fn.serial(TABLE, fn.RunningBatchNorm1d(3))), torch.tensor([2, 2, 1], dtype=torch.int32)
    ),
}
