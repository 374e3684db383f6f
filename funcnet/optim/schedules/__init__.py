"""Schedules: rates as functions of the step, for any hyperparameter.

Each is a frozen value that is called with a step t and returns the rate, ``schedule(t)``. Step 0 is the first update. An int
gives a float; a 0-d tensor gives a 0-d float64 tensor, so that a schedule is compiled with the step it belongs to, and maps over
steps under ``torch.func.vmap``. In eager mode both give the same bits. A negative step raises ``ValueError`` where its value can
be read.

To write your own, subclass ``base.FormulaSchedule`` and define ``rate_at(t)``, or wrap a function in a ``LambdaSchedule``.

torch's schedulers multiply the rate of an optimizer by a factor; schedules here return the rate itself:

    LambdaLR                      lr * LambdaSchedule(f)
    StepLR, MultiStepLR           StepSchedule, MultiStepSchedule
    ConstantLR                    PiecewiseConstantSchedule((factor * lr, lr), (total_iters,))
    LinearLR                      LinearSchedule(start_factor * lr, end_factor * lr, total_iters)
    PolynomialLR, ExponentialLR   PolynomialSchedule, ExponentialSchedule
    CosineAnnealingLR             CosineAnnealingSchedule; CosineSchedule stays at the end
    CosineAnnealingWarmRestarts   CosineRestartsSchedule
    OneCycleLR, CyclicLR          OneCycleSchedule and OneCycleMomentumSchedule, CyclicSchedule
    SequentialLR                  JoinedSchedule
    ChainedScheduler              a * b
    ReduceLROnPlateau             ReduceOnPlateau

Those of optax have their names with ``Schedule`` at the end, and a ``start`` in place of ``init_value``.
"""
