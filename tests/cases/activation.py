"""Activations."""

import torch

import funcnet as fn
from cases.making import KINKS, LARGE, case, loose, normal

CASES = {
    "ReLU": case(fn.ReLU(), normal(4, 3)),
    "ReLU on 3 axes": case(fn.ReLU(), normal(2, 3, 4)),
    "ReLU of one number": case(fn.ReLU(), torch.tensor(0.5)),
    "ReLU on its kink": case(fn.ReLU(), KINKS),
    "ReLU of many, half of them on the kink": case(fn.ReLU(), normal(20, 5).clamp_min(0.0)),
    "LeakyReLU": case(fn.LeakyReLU(), normal(4, 3)),
    "LeakyReLU on its kink": case(fn.LeakyReLU(0.2), KINKS),
    "LeakyReLU slope 0": case(fn.LeakyReLU(0.0), KINKS),
    "LeakyReLU slope 1": case(fn.LeakyReLU(1.0), KINKS),
    "LeakyReLU slope above 1": case(fn.LeakyReLU(1.5), KINKS),
    "LeakyReLU falling": case(fn.LeakyReLU(-0.5), KINKS),
    "Sigmoid": case(fn.Sigmoid(), normal(4, 3)),
    "Sigmoid of a vector": case(fn.Sigmoid(), normal(3)),
    "Sigmoid of large numbers": case(fn.Sigmoid(), LARGE),
    "Tanh": case(fn.Tanh(), normal(4, 3)),
    "Tanh of large numbers": case(fn.Tanh(), LARGE),
    "Softmax": case(fn.Softmax(), normal(4, 3)),
    "Softmax of a vector": case(fn.Softmax(), normal(3)),
    "Softmax of one number": case(fn.Softmax(), normal(2, 1)),
    "Softmax of large numbers": case(fn.Softmax(), LARGE),
    "Softmax along the middle axis": case(fn.Softmax(1), normal(2, 3, 4)),
    "Softmax along the first axis": loose(fn.Softmax(0), normal(4, 3)),
    "LogSoftmax": case(fn.LogSoftmax(), normal(4, 3)),
    "LogSoftmax of a vector": case(fn.LogSoftmax(), normal(3)),
    "LogSoftmax of one number": case(fn.LogSoftmax(), normal(2, 1)),
    "LogSoftmax of large numbers": case(fn.LogSoftmax(), LARGE),
    "LogSoftmax along the middle axis": case(fn.LogSoftmax(-2), normal(2, 3, 4)),
    "LogSoftmax along the first axis": loose(fn.LogSoftmax(0), normal(4, 3)),
}
