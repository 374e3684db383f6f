"""Activations."""

import torch

import funcnet as fn
from cases.making import KINKS, LARGE, case, loose, normal

BASIC = {
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
}

RECTIFIERS = {
    "ReLU6": case(fn.ReLU6(), normal(4, 3) * 6),
    "ReLU6 on its kinks": case(fn.ReLU6(), torch.cat([KINKS, KINKS + 6])),
    "ELU": case(fn.ELU(), normal(4, 3)),
    "ELU on its kink": case(fn.ELU(0.3), KINKS),
    "ELU of large numbers": case(fn.ELU(2.5), LARGE),
    "ELU falling": case(fn.ELU(-0.5), normal(4, 3)),
    "ELU cut off": case(fn.ELU(0.0), KINKS),
    "CELU": case(fn.CELU(0.4), normal(4, 3)),
    "CELU of large numbers": case(fn.CELU(2.0), LARGE),
    "CELU negative": case(fn.CELU(-1.5), normal(4, 3)),
    "SELU": case(fn.SELU(), normal(4, 3)),
    "SELU on its kink": case(fn.SELU(), KINKS),
}

GATES = {
    "GELU": case(fn.GELU(), normal(4, 3)),
    "GELU of large numbers": case(fn.GELU(), LARGE),
    "GELU by tanh": case(fn.GELU("tanh"), normal(4, 3)),
    "GELU by tanh of large numbers": case(fn.GELU("tanh"), LARGE),
    "SiLU": case(fn.SiLU(), normal(4, 3)),
    "SiLU of large numbers": case(fn.SiLU(), LARGE),
}

SOFTMAXES = {
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

CASES = {**BASIC, **RECTIFIERS, **GATES, **SOFTMAXES}
