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
    "ClippedLinear": case(fn.ClippedLinear(), normal(4, 3)),
    "ClippedLinear falling": case(fn.ClippedLinear(-2.0, 0.5, -1.0, 3.0), normal(4, 3) * 2),
    "ClippedLinear on its kinks": case(fn.ClippedLinear(0.5, 0.0, 0.0, 0.5), torch.cat([KINKS, KINKS + 1])),
    "ReLUK": case(fn.ReLUK(2.0), torch.cat([KINKS, KINKS + 2])),
    "Threshold": case(fn.Threshold(0.1, 0.0), normal(4, 3)),
    "Threshold, a high value below": case(fn.Threshold(-0.3, 20.0), normal(4, 3)),
    "PReLU": case(fn.PReLU(), normal(4, 3)),
    "PReLU of a vector": case(fn.PReLU(init=-0.5), normal(3)),
    "PReLU of a number": case(fn.PReLU(), normal()),
    "PReLU of channels": case(fn.PReLU(3), normal(2, 3, 4)),
    "PReLU of features": case(fn.PReLU(3), normal(4, 3)),
    "PReLU on its kink": case(fn.PReLU(5), KINKS),
    "RReLU": case(fn.RReLU(), normal(4, 3)),
    "RReLU, wide": case(fn.RReLU(-0.5, 2.0), KINKS),
    "RReLU of one slope": case(fn.RReLU(0.3, 0.3), normal(2, 3, 2)),
    "RReLU inference": case(fn.RReLU().inference(), normal(4, 3)),
}

GATES = {
    "GELU": case(fn.GELU(), normal(4, 3)),
    "GELU of large numbers": case(fn.GELU(), LARGE),
    "GELU by tanh": case(fn.GELU("tanh"), normal(4, 3)),
    "GELU by tanh of large numbers": case(fn.GELU("tanh"), LARGE),
    "SiLU": case(fn.SiLU(), normal(4, 3)),
    "SiLU of large numbers": case(fn.SiLU(), LARGE),
    "Mish": case(fn.Mish(), normal(4, 3)),
    "Mish of large numbers": case(fn.Mish(), LARGE),
    "Dish": case(fn.Dish(), normal(4, 3)),
    "Dish of large numbers": case(fn.Dish(), LARGE),
    "Hardswish": case(fn.Hardswish(), normal(4, 3) * 4),
    "Hardswish on its kinks": case(fn.Hardswish(), torch.cat([KINKS - 3, KINKS + 3])),
    "Hardswish of another slope": case(fn.Hardswish(0.2), torch.cat([normal(3, 5) * 4, KINKS - 2.5, KINKS + 2.5])),
    "GLU": case(fn.GLU(), normal(4, 6)),
    "GLU of channels": case(fn.GLU(1), normal(2, 4, 3)),
    "GLU of rows": loose(fn.GLU(0), normal(4, 3)),
    "GLU of a vector": case(fn.GLU(), normal(4)),
    "SwiGLU": case(fn.SwiGLU(), normal(4, 6)),
    "SwiGLU of channels": case(fn.SwiGLU(1), normal(2, 4, 3)),
    "GEGLU": case(fn.GEGLU(-2), normal(2, 4, 3)),
    "ReGLU": case(fn.ReGLU(), normal(4, 2)),
}

SIGMOIDS = {
    "Hardtanh": case(fn.Hardtanh(), normal(4, 3) * 2),
    "Hardtanh on its kinks": case(fn.Hardtanh(-2.0, 0.5), torch.cat([KINKS - 2, KINKS + 0.5])),
    "Hardsigmoid": case(fn.Hardsigmoid(), normal(4, 3) * 4),
    "Hardsigmoid on its kinks": case(fn.Hardsigmoid(), torch.cat([KINKS - 3, KINKS + 3])),
    "SparseSigmoid": case(fn.SparseSigmoid(), normal(4, 3) * 2),
    "Softsign": case(fn.Softsign(), normal(4, 3)),
    "Softsign on its middle": case(fn.Softsign(), KINKS),
    "LogSigmoid": case(fn.LogSigmoid(), normal(4, 3)),
    "LogSigmoid of large numbers": case(fn.LogSigmoid(), LARGE),
}

SOFTPLUSES = {
    "Softplus": case(fn.Softplus(), normal(4, 3)),
    "Softplus, steep": case(fn.Softplus(3.0, 2.0), normal(4, 3)),
    "Softplus of large numbers": case(fn.Softplus(0.5), LARGE),
    "Squareplus": case(fn.Squareplus(), normal(4, 3)),
    "Squareplus, sharp": case(fn.Squareplus(0.1), LARGE),
    "SparsePlus": case(fn.SparsePlus(), normal(4, 3) * 2),
    "SparsePlus on its kinks": case(fn.SparsePlus(), torch.cat([KINKS - 1, KINKS + 1])),
}

SHRINKAGES = {
    "Softshrink": case(fn.Softshrink(), normal(4, 3)),
    "Softshrink on its kinks": case(fn.Softshrink(0.25), torch.cat([KINKS - 0.25, KINKS + 0.25])),
    "Softshrink by nothing": case(fn.Softshrink(0.0), normal(4, 3)),
    "Hardshrink": case(fn.Hardshrink(), normal(4, 3)),
    "Hardshrink negative": case(fn.Hardshrink(-1.0), KINKS),
    "Tanhshrink": case(fn.Tanhshrink(), normal(4, 3)),
    "Tanhshrink of large numbers": case(fn.Tanhshrink(), LARGE),
}

FUNCTIONS = {
    "Sin": case(fn.Sin(), normal(4, 3)),
    "Cos": case(fn.Cos(), normal(4, 3)),
    "Exp": case(fn.Exp(), normal(4, 3)),
    "Square": case(fn.Square(), KINKS),
    "Monomial": case(fn.Monomial(3), normal(4, 3)),
    "Monomial of degree 1": case(fn.Monomial(1), KINKS),
    "Abs": case(fn.Abs(), normal(4, 3)),
    "Abs on its kink": case(fn.Abs(), KINKS),
    "Sign": case(fn.Sign(), normal(4, 3)),
    "Erf": case(fn.Erf(), normal(4, 3)),
    "Gaussian": case(fn.Gaussian(), normal(4, 3)),
    "Gaussian, wide": case(fn.Gaussian(2.0, -0.3), normal(4, 3)),
    "RandomFourier": case(fn.RandomFourier(), normal(4, 3)),
    "RandomFourier, wide": case(fn.RandomFourier(0.2), normal(4, 3)),
}

SOFTMAXES = {
    "Softmax, tempered": case(fn.Softmax(temperature=2.5), normal(4, 3)),
    "Softmax, cold": case(fn.Softmax(1, 0.5), normal(2, 3, 4)),
    "Softmin": case(fn.Softmin(), normal(4, 3)),
    "Softmin along the first axis": loose(fn.Softmin(0), LARGE),
    "Softmax2d": case(fn.Softmax2d(), normal(2, 3, 2, 3)),
    "Softmax2d without batch": loose(fn.Softmax2d(), normal(3, 2, 2)),
    "MultiSoftmax": case(fn.MultiSoftmax((2, 1, 3)), normal(4, 6)),
    "MultiSoftmax on 3 axes": case(fn.MultiSoftmax((2, 2)), normal(2, 3, 4)),
    "LogSumExp": case(fn.LogSumExp(), normal(4, 3)),
    "LogSumExp of a number": case(fn.LogSumExp(), normal()),
    "LogSumExp of large numbers": case(fn.LogSumExp(), LARGE),
    "LogSumExp kept": case(fn.LogSumExp(1, keepdim=True), normal(2, 3, 4)),
    "LogSumExp of rows": loose(fn.LogSumExp(0), normal(4, 3)),
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

RADIAL = {
    "RBF": case(fn.RBF(3, 2), normal(5, 3)),
    "RBF of a vector": case(fn.RBF(3, 4, 0.3), normal(3)),
    "RBF on 3 axes": case(fn.RBF(2, 3, 0.5), normal(2, 4, 2)),
    "RBF of one feature, to one center": case(fn.RBF(1, 1, 2.0), normal(4, 1)),
}

CASES = {**BASIC, **RECTIFIERS, **GATES, **SIGMOIDS, **SOFTPLUSES, **SHRINKAGES, **FUNCTIONS, **SOFTMAXES, **RADIAL}
