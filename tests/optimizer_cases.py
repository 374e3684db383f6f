"""The catalogue of optimizers and gradient transforms: every public one, and options that select another kernel."""

from typing import Any

import funcnet as fn

RATE = fn.LinearSchedule(0.1, 0.01, 12)
"""A learning rate that changes over the steps of a test."""

FAMILIES: list[fn.Optimizer] = [
    fn.SGD(lr=0.1),
    fn.SGD(lr=0.1, momentum=0.9),
    fn.SGD(lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=True, fused=True),
    fn.SGD(lr=0.1, momentum=0.9, dampening=0.2, maximize=True),
    fn.SGD(lr=0.1, momentum=0.9, averaged=True),
    fn.SGD(lr=RATE, momentum=fn.LinearSchedule(0.5, 0.9, 12), weight_decay=fn.StepSchedule(0.1, 5)),
    fn.Adam(lr=0.1),
    fn.Adam(lr=0.1, weight_decay=0.1, amsgrad=True, maximize=True),
    fn.AdamW(lr=fn.CosineSchedule(0.1, 12), betas=(0.9, fn.LinearSchedule(0.9, 0.99, 12))),
    fn.NAdam(lr=0.1, weight_decay=0.1, decoupled_weight_decay=True),
    fn.RAdam(lr=0.1, betas=(0.9, 0.95), weight_decay=0.1),
    fn.Adamax(lr=0.1, weight_decay=0.1),
    fn.Adagrad(lr=RATE, lr_decay=0.1, initial_accumulator_value=0.1),
    fn.Adadelta(lr=1.0, eps=1e-2, maximize=True),
    fn.RMSprop(lr=0.1, alpha=0.9, eps=1e-3, weight_decay=0.1, momentum=0.9, centered=True),
    fn.Rprop(lr=0.1),
    fn.ASGD(lr=0.1, lambd=0.1, t0=2.0),
    fn.Adafactor(lr=0.1, weight_decay=0.1),
    fn.Lion(lr=0.1, weight_decay=0.1),
    fn.LAMB(lr=0.1, weight_decay=0.1),
    fn.LARS(lr=1.0, weight_decay=0.1, trust_coefficient=0.1, nesterov=True),
    fn.AdaBelief(lr=0.1, eps=1e-3, weight_decay=0.1, nesterov=True),
    fn.Yogi(lr=RATE),
    fn.Adan(lr=0.1, weight_decay=0.1),
    fn.ADOPT(lr=0.1, weight_decay=0.1, nesterov=True, maximize=True),
    fn.SignSGD(lr=0.1, momentum=0.9, weight_decay=0.1),
    fn.AdEMAMix(lr=0.1, weight_decay=0.1),
    fn.NovoGrad(lr=0.1, weight_decay=0.1),
    fn.SM3(lr=0.1),
    fn.Prodigy(weight_decay=0.1, d0=1e-2),
    fn.LBFGS(lr=0.1, history_size=3),
    fn.SOAP(lr=0.1, precondition_frequency=2),
]
"""Plain optimizers."""

MATRICES: list[fn.Optimizer] = [fn.Muon(lr=0.1, ns_dtype=None)]
"""Optimizers for matrices only."""

WRAPPED: list[fn.Optimizer] = [
    fn.chain(fn.ClipByValue(1.5), fn.ClipByGlobalNorm(2.0), fn.AdamW(lr=0.1, amsgrad=True)),
    fn.by_path({"2.*": fn.SGD(lr=0.1), fn.is_matrix: fn.Muon(lr=0.1, ns_dtype=None), "*": fn.Adam(lr=0.1)}),
    fn.freeze_params(fn.Adam(lr=0.1), "*.bias"),
    fn.MasterWeights(fn.SGD(lr=0.1, momentum=0.9)),
    fn.MasterWeights(fn.Adam(lr=RATE)),
    fn.SAM(fn.SGD(lr=0.1, momentum=0.9)),
    fn.Lookahead(fn.Adam(lr=0.1), 3),
    fn.Averaged(fn.Adam(lr=0.1), fn.EMA(0.7)),
    fn.Averaged(fn.SGD(lr=RATE, momentum=0.9), fn.EMA(0.9, debias=True, warmup=True)),
    fn.Averaged(fn.SGD(lr=0.1), fn.SWA(1, 2)),
    fn.MultiSteps(fn.Adam(lr=0.1), 3),
    fn.SkipNonFinite(fn.Adam(lr=0.1), 2),
    fn.ScheduleFree(fn.Adam(lr=0.1, betas=(0.0, 0.9))),
]
"""Optimizers that wrap others."""

OPTIMIZERS: list[fn.Optimizer] = [*FAMILIES, *WRAPPED]
"""Optimizers for params of every shape."""

DESCENDING: list[fn.Optimizer] = [
    fn.SGD(lr=2e-3, momentum=0.9),
    fn.Adam(lr=0.05),
    fn.AdamW(lr=0.05),
    fn.NAdam(lr=0.05),
    fn.RAdam(lr=0.0125),
    fn.Adamax(lr=0.05),
    fn.Adagrad(lr=0.5),
    fn.Adadelta(lr=0.25),
    fn.RMSprop(lr=4e-3),
    fn.Rprop(lr=0.01),
    fn.ASGD(lr=4e-3, lambd=0.0),
    fn.Adafactor(lr=0.1),
    fn.Lion(lr=4e-3),
    fn.LAMB(lr=0.04),
    fn.LARS(lr=0.04, trust_coefficient=0.1),
    fn.AdaBelief(lr=0.02),
    fn.Yogi(lr=0.05),
    fn.Adan(lr=0.05),
    fn.ADOPT(lr=0.05),
    fn.SignSGD(lr=4e-3, momentum=0.9),
    fn.AdEMAMix(lr=0.01, alpha=1.0),
    fn.NovoGrad(lr=2e-3),
    fn.SM3(lr=0.5),
    fn.Prodigy(),
    fn.LBFGS(lr=0.3, history_size=5),
    fn.SOAP(lr=0.05),
    fn.Muon(lr=0.01, weight_decay=0.0),
    fn.chain(fn.ClipByGlobalNorm(10.0), fn.Adam(lr=0.05)),
    fn.by_path({fn.is_matrix: fn.Adam(lr=0.05)}),
    fn.MasterWeights(fn.Adam(lr=0.05)),
    fn.SAM(fn.Adam(lr=0.05), 1e-3),
    fn.Lookahead(fn.Adam(lr=0.1)),
    fn.Averaged(fn.Adam(lr=0.05), fn.EMA(0.9)),
    fn.MultiSteps(fn.Adam(lr=0.1), 2),
    fn.SkipNonFinite(fn.Adam(lr=0.05)),
    fn.ScheduleFree(fn.Adam(lr=0.1, betas=(0.0, 0.99))),
]
"""One of each optimizer with a rate for Rosenbrock's valley, which is curved and flat."""

TRANSFORMS: list[fn.GradientTransform] = [
    fn.ClipByValue(0.5),
    fn.ClipByGlobalNorm(0.5),
    fn.ScaleBy(-2.0),
    fn.ScaleBySchedule(fn.LinearSchedule(1.0, 0.1, 5)),
    fn.ScaleByLearningRate(0.1),
    fn.ScaleBySign(),
    fn.Trace(0.9, nesterov=True),
    fn.ScaleByAdam(nesterov=True, eps_root=1e-3),
    fn.ScaleByAMSGrad(),
    fn.ScaleByBelief(),
    fn.ScaleByYogi(),
    fn.ScaleByLion(),
    fn.ScaleByRMS(bias_correction=True),
    fn.ScaleByStddev(0.5, eps=1e-2),
    fn.ScaleByRSS(),
    fn.ScaleByFactoredRMS(min_dim_size_to_factor=3),
    fn.ScaleByTrustRatio(min_norm=0.1, eps=0.1),
    fn.ScaleByParamBlockNorm(),
    fn.ScaleByParamBlockRMS(),
    fn.NormalizeByUpdateNorm(),
    fn.ClipByNorm(0.5),
    fn.ClipByBlockRMS(0.5),
    fn.AdaptiveClip(0.1),
    fn.AddDecayedWeights(0.1),
    fn.AddDecayedWeights(fn.StepSchedule(0.1, 2), mask="*"),
    fn.Centralize(),
    fn.ZeroNaNs(),
    fn.KeepParamsNonnegative(),
    fn.AddNoise(0.1),
    fn.AddPrivacyNoise(1.0, 0.5, 8),
    fn.Monitor(),
    fn.LossScale(8.0, growth_interval=2),
]
"""Gradient transforms."""


def one_of_each(values: list[Any]) -> list[Any]:
    """Return the first value of each class."""
    return [*{type(one): one for one in reversed(values)}.values()][::-1]
