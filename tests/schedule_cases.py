"""The catalogue of schedules: at least one of each kind, for the tests of the contract."""

import funcnet as fn


def halved(t):
    """Return half of the step, for a number or a tensor."""
    return t / 2


ALL = [
    fn.ConstantSchedule(0.3),
    fn.LinearSchedule(0.1, 0.7, 5),
    fn.LinearSchedule(0.1, 0.7, 50, begin=7),
    fn.PolynomialSchedule(0.3, 50, power=3.0, end=0.01, begin=4),
    fn.ExponentialSchedule(0.3, 0.98),
    fn.ExponentialSchedule(0.3, 0.5, steps=7, staircase=True, begin=3, end=0.01),
    fn.ExponentialSchedule(1.0, 1.05, end=32.0),
    fn.InverseTimeSchedule(0.3, 0.5),
    fn.InverseTimeSchedule(0.3, 0.5, steps=3, staircase=True),
    fn.InverseSquareRootSchedule(0.3, 10),
    fn.InverseSquareRootSchedule(0.3, 0, timescale=7),
    fn.StepSchedule(0.3, 3),
    fn.StepSchedule(0.3, 40, gamma=0.5),
    fn.MultiStepSchedule(0.3, (3, 3, 50), gamma=0.5),
    fn.MultiStepSchedule(0.3, ()),
    fn.PiecewiseConstantSchedule((0.3, 0.2, 0.1), (5, 60)),
    fn.PiecewiseInterpolateSchedule((0.0, 0.3, 0.1), (5, 60)),
    fn.PiecewiseInterpolateSchedule((0.3, 0.2, 0.1), (5, 60), "cosine"),
    fn.CosineSchedule(0.3, 7),
    fn.CosineSchedule(0.3, 70, end=0.05, exponent=1.5),
    fn.CosineAnnealingSchedule(0.3, 7, end=0.05),
    fn.CosineRestartsSchedule(0.3, 7, end=0.05),
    fn.CosineRestartsSchedule(0.3, 7, t_mult=3),
    fn.CosineRestartsSchedule(0.3, 1, t_mult=2),
    fn.CyclicSchedule(0.1, 0.3, 7),
    fn.CyclicSchedule(0.1, 0.3, 7, 5, "triangular2"),
    fn.CyclicSchedule(0.1, 0.3, 7, 5, "exp_range", gamma=0.99),
    fn.CyclicSchedule(0.1, 0.3, 7, 5, scale_fn=halved, scale_mode="iterations"),
    fn.OneCycleSchedule(0.3, 50),
    fn.OneCycleSchedule(0.3, 150, anneal_strategy="linear", three_phase=True),
    fn.OneCycleMomentumSchedule(50),
    fn.OneCycleMomentumSchedule(150, three_phase=True),
    fn.WarmupSchedule(fn.StepSchedule(0.3, 10), 5),
    fn.WarmupConstantSchedule(0.3, 5, start=0.1),
    fn.WarmupLinearSchedule(0.3, 5, 100),
    fn.WarmupCosineSchedule(0.3, 4, 10, end=0.01),
    fn.WarmupCosineSchedule(0.3, 0, 100, exponent=2.0),
    fn.WarmupExponentialSchedule(0.3, 5, 0.98),
    fn.WarmupStableDecaySchedule(0.3, 10, 50, 70),
    fn.WarmupStableDecaySchedule(0.3, 0, 0, 70, decay_type="cosine"),
    fn.SlantedTriangularSchedule(0.3, 100),
    fn.SlantedTriangularSchedule(0.3, 5),
    fn.JoinedSchedule((fn.LinearSchedule(0.0, 0.3, 4), fn.ConstantSchedule(0.3), fn.StepSchedule(0.3, 2)), (4, 6)),
    0.5 * fn.StepSchedule(0.3, 30) * fn.CosineSchedule(1.0, 100),
    fn.StepSchedule(0.3, 30) + fn.CosineSchedule(1.0, 100) + 0.1,
    fn.JoinedSchedule((fn.ConstantSchedule(3.0), 0.1 * fn.LambdaSchedule(halved)), (9,)),
]
