"""Layers with a change of low rank."""

import torch

import funcnet as fn
from cases.making import case, normal

CASES = {
    "lora": case(fn.lora(fn.Linear(3, 4), 2), normal(5, 3)),
    "lora of a convolution": case(fn.lora(fn.Conv1d(2, 3, 2, bias=False), 1, alpha=0.5), normal(2, 2, 4)),
    "lora of an embedding": case(fn.lora(fn.Embedding(5, 3), 1, alpha=2.0), torch.tensor([4, 0, 4])),
    "lora with dropped weights": case(fn.lora(fn.DropConnect(3, 4, 0.3), 1), normal(5, 3)),
    "lora in a serial": case(fn.serial(fn.Linear(3, 3), fn.Tanh(), fn.lora(fn.Linear(3, 2), 1)), normal(5, 3)),
}
