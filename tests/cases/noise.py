"""Layers that take a key."""

import torch

import funcnet as fn
from cases.making import case, loose, normal

CASES = {
    "Dropout": case(fn.Dropout(), normal(4, 3)),
    "Dropout on 3 axes": case(fn.Dropout(0.2), normal(2, 3, 5)),
    "Dropout of a vector": case(fn.Dropout(0.3), normal(7)),
    "Dropout of nothing": case(fn.Dropout(0.0), normal(4, 3)),
    "Dropout of all": case(fn.Dropout(1.0), normal(4, 3)),
    "Dropout inference": case(fn.Dropout(0.5).inference(), normal(4, 3)),
    "Dropout of features at all steps": case(fn.Dropout(0.4, (1,)), normal(2, 3, 5)),
    "Dropout1d": case(fn.Dropout1d(0.4), normal(3, 4, 2)),
    "Dropout2d": case(fn.Dropout2d(0.3), normal(2, 4, 2, 3)),
    "Dropout2d without batch": loose(fn.Dropout2d(), normal(4, 2, 3)),
    "Dropout3d": case(fn.Dropout3d(), normal(2, 3, 2, 1, 2)),
    "DropPath": case(fn.DropPath(0.4), normal(6, 3, 2)),
    "DropPath of a vector": case(fn.DropPath(), normal(6)),
    "DropPath in a residual": case(fn.residual(fn.serial(fn.Linear(3, 3), fn.DropPath(0.5))), normal(5, 3)),
    "AlphaDropout": case(fn.AlphaDropout(0.3), normal(4, 3)),
    "AlphaDropout of all": case(fn.AlphaDropout(1.0), normal(4, 3)),
    "FeatureAlphaDropout": case(fn.FeatureAlphaDropout(), normal(3, 4, 2)),
    "GaussianNoise": case(fn.GaussianNoise(0.5), normal(4, 3)),
    "GaussianSample": case(fn.GaussianSample(), (normal(4, 3), normal(4, 3))),
    "GaussianSample on 3 axes": case(fn.GaussianSample(), (normal(2, 3, 2), normal(2, 3, 2))),
    "GaussianSample in a net": case(fn.serial(fn.branch(fn.Linear(3, 2), fn.Linear(3, 2)), fn.GaussianSample()), normal(4, 3)),
    "RandomTensor": loose(fn.RandomTensor(), normal(4, 3)),
    "RandomTensor for rows": loose(fn.RandomTensor("bernoulli", (fn.InputSize(), fn.InputOnes(0, 1)), 0.3), normal(4, 3)),
    "RandomTensor of a dtype": loose(
        fn.RandomTensor("uniform", (fn.InputSize(), 2), dtype=torch.float64), (normal(4), normal(2))
    ),
    "GumbelSoftmax": case(fn.GumbelSoftmax(), normal(4, 3)),
    "GumbelSoftmax, cold, of channels": case(fn.GumbelSoftmax(0.5, 1), normal(2, 3, 4)),
    "GumbelSoftmax along the first axis": loose(fn.GumbelSoftmax(dim=0), normal(4)),
    "DropConnect": case(fn.DropConnect(3, 4, 0.3), normal(5, 3)),
    "DropConnect on 3 axes without bias": case(fn.DropConnect(3, 2, bias=False), normal(2, 4, 3)),
    "DropConnect inference": case(fn.DropConnect(3, 2).inference(), normal(5, 3)),
}
